// Features by workers that do not talk to each other: graft features --shard and --merge.
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/group_folder.h"
#include "base/json.h"
#include "base/part_file.h"
#include "base/progress.h"
#include "features/feature_file.h"
#include "graft/features.h"
#include "recipe/option_values.h"

namespace graft {
namespace {

constexpr const char* kKind = "features";
// What a record's content begins with: values follow, or why there are none.
constexpr char kRow = 'r';
constexpr char kSkipped = 's';

/// Values where floats may lie.
std::vector<float> values_of(std::string_view content) {
  std::vector<float> values(content.size() / sizeof(float));
  std::memcpy(values.data(), content.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace

FeatureShard write_feature_shard(FeatureExtractor& extractor,
                                 std::span<const std::filesystem::path> images, const Shard& shard,
                                 const std::filesystem::path& folder,
                                 const std::function<void(size_t, const std::string&)>& on_error,
                                 bool replace, const RunContext& context) {
  require_callbacks(static_cast<bool>(on_error));
  const std::vector<size_t> members = shard_members(images, shard);
  make_folder(folder);
  FeatureShard out{part_path(folder, kKind, shard), members.size()};
  const PartHead head{kKind, shard, images.size(), list_hash(images),
                      nlohmann::json::parse(extractor.about())};
  const auto skip = [&](size_t image, std::string_view why) {
    ++out.skipped;
    on_error(image, std::string(why));
  };
  PartWriter part(
      out.part, head, replace,
      [&](const PartRecord& record) {
        if (out.earlier >= members.size() || record.image != members[out.earlier])
          fail(ErrorKind::input, "{}: not the images of this shard; start it anew with --force",
               printable(out.part));
        ++out.earlier;
        if (record.content.starts_with(kSkipped)) skip(record.image, record.content.substr(1));
      },
      [&](const std::string& note) { context.tell(Severity::warning, note); });
  if (part.complete()) return out;
  if (out.earlier > 0)
    context.tell(Severity::info,
                 fmt::format("{}: {} of {} images are there already, of an earlier run",
                             printable(out.part), out.earlier, members.size()));
  std::vector<std::filesystem::path> paths;
  for (size_t k = out.earlier; k < members.size(); ++k) paths.push_back(images[members[k]]);
  const auto add = [&](size_t k, char mark, std::string_view bytes) {
    const size_t image = members[out.earlier + k];
    part.add({image, images[image].native(), mark + std::string(bytes)});
  };
  try {
    extractor.run(
        paths,
        [&](size_t k, std::span<const float> values) {
          add(k, kRow, {reinterpret_cast<const char*>(values.data()), values.size_bytes()});
        },
        [&](size_t k, const std::string& message) {
          add(k, kSkipped, message);
          skip(members[out.earlier + k], message);
        });
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) part.flush();
    throw;
  }
  part.commit();
  return out;
}

MergedFeatures merge_features(
    std::span<const std::filesystem::path> parts, const std::filesystem::path& file,
    const std::filesystem::path& list,
    const std::function<void(const std::filesystem::path&, const std::string&)>& on_error,
    const RunContext& context) {
  require_callbacks(static_cast<bool>(on_error));
  Parts all(parts, kKind);
  MergedFeatures out;
  const JsonField about(all.head().about, "the parts' options");
  size_t elements = 1;
  for (const JsonField& extent : about.at("shape").items()) {
    out.shape.push_back(extent.integer(1, int64_t{1} << 31U));
    elements *= static_cast<size_t>(out.shape.back());
  }
  out.layer = about.at("layer").text();
  out.precision = about.at("precision").text() == options::word(Precision::bf16) ? Precision::bf16
                                                                                 : Precision::fp32;
  FeatureTable table(file, list, out.shape);
  Progress progress(context, "joining", all.head().images, "images");
  size_t done = 0;
  all.read([&](const PartRecord& record) {
    const std::filesystem::path image = record.path;
    if (record.content.starts_with(kSkipped))
      on_error(image, std::string(record.content.substr(1)));
    else if (record.content.size() == 1 + elements * sizeof(float))
      table.add(image, values_of(record.content.substr(1)));
    else
      fail(ErrorKind::input, "{}: features of another shape than the parts say", printable(image));
    if (++done % 256 == 0) {
      progress.update(done);
      context.check_stop();
    }
  });
  progress.finish();
  out.rows = table.commit(done);
  return out;
}

std::optional<MergedFeatures> write_features_in_group(
    FeatureExtractor& extractor, std::span<const std::filesystem::path> images,
    const GroupPlace& place, const std::filesystem::path& folder, const std::filesystem::path& file,
    const std::filesystem::path& list,
    const std::function<void(const std::filesystem::path&, const std::string&)>& on_error,
    bool replace, const RunContext& context) {
  require_callbacks(static_cast<bool>(on_error));
  const uint32_t count = group_parts(images.size(), place.size);
  const nlohmann::json job = {{"images", images.size()},
                              {"list", list_hash(images)},
                              {"about", nlohmann::json::parse(extractor.about())}};
  GroupFolder group(folder, place, job.dump(), context);
  WithoutProgress messages(context.reporter);
  RunContext inner = context;
  inner.reporter = &messages;
  const std::vector<fs::path> parts = group.share_out(
      count,
      [&](uint32_t k) {
        return part_path(folder, kKind, {k, count});
      },
      [&](uint32_t k) {
        // Images that cannot be read are told at the joining.
        static_cast<void>(write_feature_shard(
            extractor, images, {k, count}, folder, [](size_t, const std::string&) {}, replace,
            inner));
      });
  if (place.rank != 0) return std::nullopt;
  MergedFeatures made = merge_features(parts, file, list, on_error, context);
  group.remove(kKind);
  return made;
}

}  // namespace graft
