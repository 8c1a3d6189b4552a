#include "run/load_backbone.h"

#include <fmt/format.h>

#include <system_error>

#include "base/file.h"
#include "run/keep_head.h"
#include "weights/load.h"
#include "weights/registry.h"

namespace graft {
namespace {

fs::path cache_folder(const TrainPlan& plan) {
  return plan.cache.folder.empty() ? default_cache_folder() : plan.cache.folder;
}

/// Whether weights that are published are yet to be downloaded.
bool is_absent(const TrainPlan& plan) {
  const Recipe::Model& model = plan.recipe.model;
  const auto family = published_family(model.weights);
  if (!family) return false;
  const PublishedFile* file = find_published(model.backbone, /*include_top=*/false, *family);
  std::error_code error;
  return file != nullptr && !fs::exists(cached_path(*file, cache_folder(plan)), error);
}

}  // namespace

Weights load_backbone(const TrainPlan& plan, const RunContext& context) {
  if (keeps_head(plan.recipe))
    return load_kept(plan.recipe, plan.network, plan.dataset.classes, context);
  const Network base = make_backbone(plan.recipe.model);
  WeightsRequest request;
  request.weights = plan.recipe.model.weights;
  request.backbone = base.backbone;
  request.preprocessing = plan.recipe.model.preprocessing;
  request.resampling = plan.recipe.model.resampling;
  request.input_height = base.input_height;
  request.input_width = base.input_width;
  request.seed = plan.recipe.seed;
  request.cache = cache_folder(plan);
  request.context = context;
  Weights weights = load_weights(request, base);
  if (!weights.note.empty()) context.tell(Severity::note, "note: " + weights.note);
  return weights;
}

void check_weights(TrainPlan& plan, const RunContext& context) {
  if (is_absent(plan))
    plan.dataset.notes.push_back(
        fmt::format("`weights {}`: not in the cache yet, so that training begins with a download",
                    plan.recipe.model.weights));
  else if (plan.recipe.model.weights != "none")
    static_cast<void>(load_backbone(plan, context));
}

}  // namespace graft
