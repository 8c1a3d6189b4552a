#include "serve/model_store.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/limits.h"
#include "graft/run_files.h"
#include "model/model_file.h"
#include "report/model_card.h"
#include "serve/text.h"
#include "weights/safetensors.h"

namespace graft::serving {
namespace {

/// A copy in memory: who cuts or overwrites the file while it is mapped would end this process by
/// SIGBUS, and maps and features, whose engines are made when asked for, are the same model's.
/// `hash` becomes the content's.
Descriptor pinned(const fs::path& file, std::string& hash) {
  const std::vector<std::byte> bytes = read_file(file);
  hash = content_hash(bytes);
  Descriptor copy(::memfd_create("graft-model", MFD_CLOEXEC));
  for (size_t at = 0; copy.valid() && at < bytes.size();) {
    const ssize_t wrote = ::write(copy.get(), &bytes[at], bytes.size() - at);
    if (wrote <= 0) fail(ErrorKind::memory, "{}: no memory to load it", printable(file));
    at += static_cast<size_t>(wrote);
  }
  if (!copy.valid())
    fail(ErrorKind::io, "{}: cannot be loaded: {}", printable(file), system_error_text(errno));
  return copy;
}

/// Makes a model; errors name the file and not its copy.
ModelPtr load(const std::string& name, const fs::path& file, const ClassifierOptions& options) {
  try {
    return std::make_shared<ServedModel>(name, file, options);
  } catch (const Error& error) {
    std::string text = error.what();
    for (size_t at; (at = text.find("/proc/self/fd/")) != std::string::npos;)
      text.replace(at, text.find_first_not_of("0123456789", at + 14) - at, printable(file));
    throw Error(error.kind(), text);
  }
}

int thread_count_of(const ClassifierOptions& options) {
  RunContext context;
  context.threads = options.threads;
  return context.thread_count();
}

bool is_model_name(const fs::path& file) { return file.extension() == ".safetensors"; }

}  // namespace

ServedModel::ServedModel(std::string name, const fs::path& file, const ClassifierOptions& options)
    : name_(std::move(name)),
      content_(pinned(file, version_)),
      file_(fmt::format("/proc/self/fd/{}", content_.get())),
      options_(options),
      loaded_(now_utc()),
      classifier_(Classifier::load(file_, options)),
      card_(model_card(parse_metadata(open_safetensors(file_).metadata, printable(file_)))) {
  classifier_.prepare(1);  // the first request should not have to
}

std::string ServedModel::feature_layer() const {
  const std::vector<Layer>& layers = info().network.layers;
  const auto head =
      std::find_if(layers.begin(), layers.end(), [](const Layer& layer) { return layer.in_head; });
  return head == layers.begin() ? std::string() : std::prev(head)->name;
}

std::vector<std::byte> ServedModel::explain(const Image& fitted, const Image& shown) {
  const std::lock_guard lock(explaining_);
  if (!cam_)
    cam_.emplace(read_model(file_), "", thread_count_of(options_), options_.views,
                 options_.precision);
  const Network& network = info().network;
  return encode_png(overlay(shown, cam_->explain_fitted(fitted), info().preprocessing,
                            network.input_width, network.input_height));
}

std::vector<float> ServedModel::features(const Image& image, Pooling pooling,
                                         std::vector<int64_t>& shape) {
  const std::lock_guard lock(extracting_);
  auto at = extractors_.find(pooling);
  if (at == extractors_.end()) {
    const Network& network = info().network;
    FeatureOptions options;
    options.model.backbone = network.backbone;
    options.model.weights = file_.string();
    options.model.until = feature_layer();
    options.model.input = {network.input_height, network.input_width};
    options.pooling = pooling;
    options.precision = options_.precision;
    RunContext context;
    context.threads = options_.threads;
    at = extractors_.emplace(pooling, FeatureExtractor(options, context)).first;
  }
  shape = at->second.shape();
  std::vector<float> row;
  at->second.run(std::span(&image, 1), [&](size_t, std::span<const float> values) {
    row.assign(values.begin(), values.end());
  });
  return row;
}

ModelStore::ModelStore(const std::vector<std::string>& paths, ClassifierOptions options, Tell tell)
    : paths_(paths), options_(options), tell_(std::move(tell)) {
  for (const Found& found : look()) {
    const std::optional<Stamp> stamp = stamp_of(found.file);
    ModelPtr model = load(found.name, found.file, options_);
    tell_("loaded", found.name, printable(found.file));
    entries_.push_back({found.name, found.file, stamp.value_or(Stamp{}), std::move(model)});
  }
}

ModelPtr ModelStore::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  if (name.empty()) return entries_.front().model;
  for (const Entry& entry : entries_)
    if (entry.name == name) return entry.model;
  return nullptr;
}

std::vector<ModelPtr> ModelStore::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<ModelPtr> out;
  for (const Entry& entry : entries_) out.push_back(entry.model);
  return out;
}

void ModelStore::refresh() {
  std::vector<Found> there;
  try {
    there = look();
  } catch (const Error&) {
    return;  // a folder in the middle of being replaced: models stay as they are
  }
  for (const Found& found : there) {
    const std::optional<Stamp> stamp = stamp_of(found.file);
    if (!stamp) continue;
    bool is_new = true;
    {
      const std::lock_guard lock(mutex_);
      for (const Entry& entry : entries_)
        if (entry.name == found.name) is_new = entry.stamp != *stamp || entry.file != found.file;
    }
    const auto before = refused_.find(found.file);
    if (!is_new || (before != refused_.end() && before->second == *stamp)) continue;
    try {
      ModelPtr model = load(found.name, found.file, options_);
      const std::lock_guard lock(mutex_);
      const auto at = std::find_if(entries_.begin(), entries_.end(),
                                   [&](const Entry& entry) { return entry.name == found.name; });
      const bool added = at == entries_.end();
      if (added)
        entries_.push_back({found.name, found.file, *stamp, std::move(model)});
      else
        *at = {found.name, found.file, *stamp, std::move(model)};
      refused_.erase(found.file);
      tell_(added ? "loaded" : "reloaded", found.name, printable(found.file));
    } catch (const Error& error) {
      refused_[found.file] = *stamp;
      tell_("not reloaded", found.name, error.what());
    }
  }
}

std::optional<ModelStore::Stamp> ModelStore::stamp_of(const fs::path& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return std::nullopt;
  return Stamp{static_cast<uint64_t>(info.st_size),
               info.st_mtim.tv_sec * int64_t{1'000'000'000} + info.st_mtim.tv_nsec, info.st_ino};
}

std::vector<ModelStore::Found> ModelStore::look() const {
  std::vector<Found> out;
  const auto add = [&](std::string name, const fs::path& file) {
    if (name.empty()) {
      // "model.safetensors" says nothing: the run folder does.
      const fs::path whole = fs::absolute(file).lexically_normal();
      name = (file.filename() == run_files::kModel ? whole.parent_path().filename() : whole.stem())
                 .string();
    }
    for (const Found& found : out)
      if (found.name == name)
        fail(ErrorKind::usage, "two models of the name '{}': {} and {}; name one with NAME=PATH",
             name, printable(found.file), printable(file));
    out.push_back({std::move(name), file});
  };
  for (const std::string& path : paths_) {
    const size_t equals = path.find('=');
    std::error_code error;
    const bool named = equals != std::string::npos && equals > 0 && !fs::exists(path, error);
    const std::string name = named ? path.substr(0, equals) : "";
    const fs::path place = named ? path.substr(equals + 1) : path;
    if (!fs::is_directory(place, error) || fs::exists(place / run_files::kModel, error)) {
      add(name, model_file(place));
      continue;
    }
    std::vector<fs::path> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(place, error)) {
      if (entry.is_regular_file(error) && is_model_name(entry.path()))
        files.push_back(entry.path());
      if (fs::exists(entry.path() / run_files::kModel, error))
        files.push_back(entry.path() / run_files::kModel);
    }
    if (files.empty())
      fail(ErrorKind::input,
           "{}: neither a run folder nor a folder of models (.safetensors files or run folders)",
           printable(place));
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) add("", file);
  }
  if (out.empty()) fail(ErrorKind::usage, "no model to serve");
  return out;
}

}  // namespace graft::serving
