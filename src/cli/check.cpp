// graft check: what is odd about a dataset.
#include <algorithm>
#include <optional>

#include "base/fail.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/option_flags.h"
#include "cli/outputs.h"
#include "cli/shard_options.h"
#include "graft/inspect.h"
#include "graft/labels.h"

namespace graft::cli {
namespace {

constexpr const char* kBackboneOptions[] = {"--backbone",   "--weights",    "--preprocessing",
                                            "--resampling", "--input-size", "--until"};

struct CheckOptions {
  CommonOptions common;
  std::string data;
  std::string test;
  std::string val;
  std::string html;
  bool json = false;
  int most = 20;  // lines of a list in the text
  LabelCheckOptions labels;
  bool checks_labels = false;
  std::string model;
  std::string review;
  std::string corrections;
  std::string cache_dir;
  bool no_cache = false;
  ShardOptions shards;
  std::string output;
  bool force = false;
};

nlohmann::json to_json(const Dataset& dataset, const std::vector<Finding>& findings) {
  nlohmann::json out = nlohmann::json::array();
  for (const Finding& finding : findings)
    out.push_back({{"path", dataset.samples[finding.sample].path.string()}, {"why", finding.why}});
  return out;
}

nlohmann::json to_json(const std::vector<SkippedImage>& skipped) {
  nlohmann::json out = nlohmann::json::array();
  for (const SkippedImage& image : skipped)
    out.push_back({{"path", image.path.string()}, {"label", image.label}, {"why", image.why}});
  return out;
}

nlohmann::json to_json(const Dataset& dataset, const std::vector<SampleGroup>& groups) {
  nlohmann::json out = nlohmann::json::array();
  for (const SampleGroup& group : groups) {
    nlohmann::json paths = nlohmann::json::array();
    for (const size_t i : group) paths.push_back(dataset.samples[i].path.string());
    out.push_back(std::move(paths));
  }
  return out;
}

void add_labels(nlohmann::json& out, const Dataset& dataset, const LabelCheck& labels) {
  const auto name = [&](int label) { return dataset.classes[static_cast<size_t>(label)]; };
  nlohmann::json errors = nlohmann::json::array();
  for (size_t k = 0; k < labels.doubtful; ++k) {
    const LabelDoubt& doubt = labels.ranking[k];
    const Sample& sample = dataset.samples[doubt.sample];
    errors.push_back({{"path", sample.path.string()},
                      {"label", name(sample.label)},
                      {"suggestion", name(doubt.suggestion)},
                      {"confidence", doubt.confidence},
                      {"label_confidence", doubt.label_confidence}});
  }
  nlohmann::json pairs = nlohmann::json::array();
  for (const LabelPair& pair : labels.pairs)
    pairs.push_back({{"label", name(pair.label)},
                     {"suggestion", name(pair.suggestion)},
                     {"images", pair.images}});
  out["label_errors"] = std::move(errors);
  out["label_noise"] = labels.share;
  out["label_pairs"] = std::move(pairs);
  out["labels_judged"] = labels.ranking.size();
  out["labels_judged_by"] = labels.features;
  for (const std::string& note : labels.notes) out["notes"].push_back("labels: " + note);
}

nlohmann::json document(const Dataset& dataset, const Inspection& found,
                        const std::optional<LabelCheck>& labels) {
  nlohmann::json classes = nlohmann::json::object();
  for (size_t label = 0; label < dataset.classes.size(); ++label)
    classes[dataset.classes[label]] = found.class_counts[label];
  nlohmann::json splits = nlohmann::json::object();
  for (const Sample& sample : dataset.samples) {
    const std::string name =
        sample.split == Split::unassigned ? "unassigned" : std::string(to_string(sample.split));
    splits[name] = splits.value(name, 0) + 1;
  }
  nlohmann::json out = {{"images", dataset.samples.size()},
                        {"classes", classes},
                        {"splits", splits},
                        {"layout", dataset.understood},
                        {"imbalance", found.imbalance},
                        {"notes", dataset.notes},
                        {"unread", dataset.unread},
                        {"empty_classes", dataset.empty_classes},
                        {"skipped", to_json(dataset.skipped)}};
  for (const FindingKind& kind : kFindingKinds)
    out[std::string(kind.key)] = to_json(dataset, found.*kind.list);
  for (const GroupKind& kind : kGroupKinds)
    out[std::string(kind.key)] = to_json(dataset, found.*kind.list);
  if (labels) add_labels(out, dataset, *labels);
  return out;
}

class Text {
 public:
  Text(const Dataset& dataset, size_t most) : dataset_(dataset), most_(most) {}

  void list(std::string_view title, const std::vector<Finding>& findings) {
    if (findings.empty()) return;
    print_result("\n{}: {}\n", title, findings.size());
    for (size_t k = 0; k < std::min(most_, findings.size()); ++k)
      print_result("  {}: {}\n", path(findings[k].sample), findings[k].why);
    rest(findings.size());
  }

  void list(std::string_view title, const std::vector<SampleGroup>& groups) {
    if (groups.empty()) return;
    print_result("\n{}: {} {}\n", title, groups.size(), groups.size() == 1 ? "group" : "groups");
    for (size_t k = 0; k < std::min(most_, groups.size()); ++k) {
      print_result(" ");
      for (size_t m = 0; m < groups[k].size(); ++m)
        print_result("{} {}", m > 0 ? " =" : "", path(groups[k][m]));
      print_result("\n");
    }
    rest(groups.size());
  }

  void list(const LabelCheck& labels) {
    const auto name = [&](int label) {
      return printable(dataset_.classes[static_cast<size_t>(label)]);
    };
    if (labels.doubtful == 0) {
      print_result("\nLabels that are probably wrong: none of {}, judged by {}\n",
                   labels.ranking.size(), labels.features);
      return;
    }
    print_result("\nLabels that are probably wrong: {} of {} ({:.1f} %), judged by {}\n",
                 labels.doubtful, labels.ranking.size(), labels.share * 100, labels.features);
    for (size_t k = 0; k < std::min({most_, labels.pairs.size(), kMostPairs}); ++k) {
      const LabelPair& pair = labels.pairs[k];
      print_result("  {} labelled {}: about {:.0f}\n", name(pair.suggestion), name(pair.label),
                   pair.images);
    }
    for (size_t k = 0; k < std::min(most_, labels.doubtful); ++k) {
      const LabelDoubt& doubt = labels.ranking[k];
      print_result("  {}: labelled {}, probably {} ({:.0f} %)\n", path(doubt.sample),
                   name(dataset_.samples[doubt.sample].label), name(doubt.suggestion),
                   doubt.confidence * 100);
    }
    rest(labels.doubtful);
  }

  /// What no training would read, and what it says to that.
  void list(const std::vector<SkippedImage>& skipped) const {
    if (skipped.empty()) return;
    const size_t images = dataset_.samples.size() + skipped.size();
    print_result("\nNot read: {} of {} images\n", skipped.size(), images);
    for (size_t k = 0; k < std::min(most_, skipped.size()); ++k)
      print_result("  {}: {}\n", printable(skipped[k].path), skipped[k].why);
    rest(skipped.size());
    const double most = Recipe().data.max_skipped;
    if (static_cast<double>(skipped.size()) > most * static_cast<double>(images))
      print_result("  more than {:g} %: 'graft train' refuses them, unless --exclude corrupt\n",
                   100 * most);
  }

 private:
  static constexpr size_t kMostPairs = 8;
  [[nodiscard]] std::string path(size_t i) const { return printable(dataset_.samples[i].path); }
  void rest(size_t size) const {
    if (size > most_)
      print_result("  … and {} more; --most N shows more, --json all of them\n", size - most_);
  }

  const Dataset& dataset_;
  size_t most_;
};

void print_text(const Dataset& dataset, const Inspection& found,
                const std::optional<LabelCheck>& labels, const CheckOptions& o) {
  print_result("{}", class_table(dataset));
  print_result("\nunderstood as {}\n", dataset.understood);
  constexpr double kMuch = 3;
  if (found.imbalance >= kMuch)
    print_result(
        "\nimbalance: the largest class has {:.1f} times the smallest one's images; "
        "train with --class-weights balanced\n",
        found.imbalance);
  Text text(dataset, static_cast<size_t>(o.most));
  if (labels) text.list(*labels);
  for (const GroupKind& kind : kGroupKinds) text.list(kind.title, found.*kind.list);
  for (const FindingKind& kind : kFindingKinds) text.list(kind.title, found.*kind.list);
  text.list(dataset.skipped);
  for (const std::string& line : dataset.empty_classes)
    print_result("\nclass without images: {}; 'graft train' refuses it\n", line);
  for (const std::string& note : dataset.notes) print_result("\nnote: {}\n", with_flags(note));
  if (labels)
    for (const std::string& note : labels->notes) print_result("\nnote: labels: {}\n", note);
  const bool doubtful = labels && labels->doubtful > 0;
  if (!found.any() && !doubtful && dataset.skipped.empty() && dataset.empty_classes.empty())
    print_result("\nnothing odd found\n");
  if (found.any())
    print_result("\n'graft train --exclude WORDS' leaves out what was found: {}\n",
                 fmt::join(kExclusions, ", "));
  if (doubtful && o.review.empty())
    print_result("\n--review FILE.csv lists the labels for a person to decide on\n");
  if (doubtful && !o.review.empty())
    print_result(
        "\n{}: fill in its column action (keep, drop, relabel, or a class), then: graft train {} "
        "--corrections {}\n",
        printable(o.review), shell_quoted(printable(o.data)), shell_quoted(printable(o.review)));
}

/// What contradicts itself, before anything is read.
void check_options(const CheckOptions& o) {
  if (!o.html.empty())
    refuse_input_as_output(o.html, "--html", {o.data, o.labels.model, o.corrections});
  if (!o.review.empty()) refuse_input_as_output(o.review, "--review", {o.data, o.labels.model});
  if (!o.html.empty() && !o.review.empty() && same_file(o.html, o.review))
    fail(ErrorKind::usage, "--html and --review name one file");
  if (!o.review.empty() && !o.checks_labels)
    fail(ErrorKind::usage,
         "--review lists labels that are probably wrong: name what judges them, a run with --model "
         "or a backbone as in '--backbone vgg-mini'");
}

int run_shard(const CheckOptions& o) {
  const Shard shard = parse_shard(o.shards.shard);
  if (o.output.empty())
    fail(ErrorKind::usage,
         "--shard needs -o FOLDER, in which each shard gets a file of its own; --merge joins them");
  std::error_code error;
  if (fs::exists(o.output, error) && !fs::is_directory(o.output, error))
    fail(ErrorKind::usage, "-o: {} is no folder", printable(o.output));
  const Dataset dataset = open_dataset(o.data, o.val, o.test, o.common.context());
  const InspectedShard made = inspect_shard(dataset, shard, o.output, o.common.context(), o.force);
  if (made.earlier == 0 || made.earlier < made.images) tell_wrote(o.common, made.part);
  if (o.json)
    print_json(shard_json(shard, made.part, made.images, made.earlier));
  else if (!o.common.quiet)
    print_result("{}: shard {} of {}, {} of {} images; 'graft check {} --merge {}' joins them\n",
                 printable(made.part), shard.index, shard.count, made.images,
                 dataset.samples.size(), shell_quoted(printable(o.data)),
                 shell_quoted(printable(o.output)));
  return 0;
}

int run(const CheckOptions& o) {
  check_options(o);
  Dataset dataset = open_dataset(o.data, o.val, o.test, o.common.context());
  // What was decided before the run that judges is not asked again.
  const EarlierCorrections earlier = earlier_corrections(o.labels.model);
  if (!o.corrections.empty() || !earlier.file.empty())
    apply_corrections(dataset, o.corrections, earlier);
  if (!o.review.empty()) require_review_replaceable(dataset, o.review);
  const Inspection found = o.shards.merges()
                               ? inspect_parts(dataset, o.shards.part_paths(), o.common.context())
                               : inspect(dataset, InspectionDepth::pixels, o.common.context());
  std::optional<LabelCheck> labels;
  if (o.checks_labels) labels = check_labels(dataset, o.labels, o.common.context());
  if (!o.html.empty()) {
    write_file_atomic(o.html, data_page(dataset, found, labels ? &*labels : nullptr));
    tell_wrote(o.common, o.html);
  }
  if (!o.review.empty()) {
    write_review(dataset, *labels, o.review);
    tell_wrote(o.common, o.review);
  }
  if (o.json)
    print_json(document(dataset, found, labels));
  else
    print_text(dataset, found, labels, o);
  return 0;
}

}  // namespace

int run_check(int argc, char** argv) {
  CheckOptions o;
  CLI::App app(
      "What is odd about a dataset: damaged, odd and identical images, leaks, wrong labels.",
      "graft check");
  app.add_option("DATA", o.data,
                 "A folder of class folders, one with train/ and test/, a zip or tar of one, tar "
                 "shards with labels, a list, or a CSV manifest")
      ->required();
  app.add_option("--test", o.test, "A folder with test images, as for train")->type_name("DIR");
  app.add_option("--val", o.val, "A folder with validation images")->type_name("DIR");
  app.add_option("--html", o.html, "Write a page with thumbnails to this file")
      ->check(ends_in(".html"))
      ->type_name("FILE.html");
  app.add_option("--most", o.most, "Lines of each list in the text")
      ->check(whole_number(1, 1 << 30))
      ->capture_default_str()
      ->type_name("N");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  app.add_option("-o,--output", o.output, "With --shard: the folder of the parts")
      ->type_name("DIR");
  app.add_flag("--force", o.force, "With --shard: replace a part of other data");
  add_shard_options(app, o.shards, "what all of them found, as one process would tell it");
  const std::string labels = "Labels that are probably wrong";
  app.add_option("--model", o.model,
                 "Look for them by the frozen layers of this run or model; or by a backbone before "
                 "any training, as in '--backbone vgg-mini'")
      ->type_name("MODEL")
      ->group(labels);
  app.add_option(
         "--review", o.review,
         "Write them to this file, for a person to fill in and 'train --corrections' to read")
      ->check(ends_in(".csv"))
      ->type_name("FILE.csv")
      ->group(labels);
  app.add_option("--corrections", o.corrections,
                 "A review that was filled in: what it decides is done, and not doubted again")
      ->type_name("FILE.csv")
      ->group(labels);
  add_backbone_options(app, o.labels.backbone);
  for (const char* name : kBackboneOptions)
    app.get_option(name)->group("The backbone that judges labels, without --model");
  app.add_flag("--no-cache", o.no_cache, "Neither read nor write cached features");
  app.add_option("--cache-dir", o.cache_dir, "Graft's cache folder, for weights and features")
      ->type_name("DIR");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft check photos/ --html check.html\n"
      "  graft check photos/train --test photos/test --json\n"
      "  graft check photos/ --shard 0/2 -o parts/\n"
      "  graft check photos/ --merge parts/\n"
      "  graft check photos/ --model runs/pets --review review.csv\n"
      "Exit code 0 whatever was found; 1 where DATA cannot be read at all.");
  return run_app(app, argc, argv, [&] {
    o.labels.model = o.model;
    o.labels.cache = {!o.no_cache, o.cache_dir};
    size_t of_backbone = 0;
    for (const char* name :
         {"--backbone", "--weights", "--preprocessing", "--resampling", "--input-size", "--until"})
      of_backbone += app.count(name);
    if (of_backbone > 0 && !o.model.empty())
      fail(ErrorKind::usage, "--model decides the backbone; leave --backbone and its options out");
    o.checks_labels = of_backbone > 0 || !o.model.empty();
    if (!o.shards.shard.empty()) {
      refuse_options_beside(app, "--shard", {"DATA", "--test", "--val", "--force"});
      return run_shard(o);
    }
    for (const char* name : {"--output", "--force"})
      if (app.count(name) > 0)
        fail(ErrorKind::usage, "{} is for --shard; --html names a page to write", name);
    return run(o);
  });
}

}  // namespace graft::cli
