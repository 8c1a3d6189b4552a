// graft/weights.h over registry, download and model files.
#include <system_error>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "graft/weights.h"
#include "model/backbone_file.h"
#include "model/import.h"
#include "recipe/options.h"
#include "weights/download.h"
#include "weights/foreign_file.h"
#include "weights/load.h"
#include "weights/registry.h"

namespace graft {

const std::vector<PublishedWeights>& published_weights() { return published_files(); }

const PublishedWeights* find_published_weights(std::string_view backbone, bool include_top) {
  return find_published(options::backbone_name(std::string(backbone)), include_top);
}

std::filesystem::path weights_path(const PublishedWeights& weights,
                                   const std::filesystem::path& cache) {
  return cached_path(weights, cache.empty() ? default_cache_folder() : cache);
}

WeightsState check_weights(const PublishedWeights& weights, const std::filesystem::path& cache) {
  const fs::path path = weights_path(weights, cache);
  std::error_code error;
  if (!fs::exists(path, error)) return WeightsState::absent;
  if (fs::file_size(path, error) != weights.bytes) return WeightsState::wrong_size;
  return md5_of_file(path) == weights.md5 ? WeightsState::good : WeightsState::wrong_md5;
}

const PublishedWeights* recognise_weights(const std::filesystem::path& file) {
  return find_published_md5(md5_of_file(file));
}

void download_weights(const PublishedWeights& weights, const std::filesystem::path& cache,
                      const RunContext& context) {
  if (weights.url.empty() || weights.file.empty())
    fail(ErrorKind::usage, "weights without an address; take them from published_weights()");
  download({download_url(weights), weights_path(weights, cache), weights.md5, weights.bytes},
           context);
}

std::string convert_weights(const std::filesystem::path& model, const std::filesystem::path& file,
                            const ConvertOptions& options, const ClassifierImport& import,
                            const RunContext& context) {
  if (same_file(file, weights_file(model)))
    fail(ErrorKind::usage, "{}: is the model itself; choose another name for its backbone",
         printable(file));
  ModelFile made = import_backbone(model, import, context);
  if (options.fold_batchnorm) made = fold_batchnorm(made);
  if (options.source) made.metadata.provenance.source = *options.source;
  if (options.licence) made.metadata.provenance.licence = *options.licence;
  write_model(file, made, options.half ? StoredType::f16 : StoredType::f32);
  return made.metadata.network.backbone;
}

bool is_foreign_model(const std::filesystem::path& file) { return is_foreign(weights_file(file)); }

std::string convert_classifier(const std::filesystem::path& model,
                               const std::filesystem::path& file, const ConvertOptions& options,
                               const ClassifierImport& import, const RunContext& context) {
  if (same_file(file, weights_file(model)))
    fail(ErrorKind::usage, "{}: is the model itself; choose another name for what is converted",
         printable(file));
  if (options.fold_batchnorm)
    fail(ErrorKind::usage, "`fold-batchnorm` is for a backbone alone: add `without-head`");
  ModelFile made = import_classifier(model, import, context);
  if (options.source) made.metadata.provenance.source = *options.source;
  if (options.licence) made.metadata.provenance.licence = *options.licence;
  write_model(file, made, options.half ? StoredType::f16 : StoredType::f32);
  return made.metadata.network.backbone;
}

}  // namespace graft
