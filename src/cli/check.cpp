// graft check: what is odd about a dataset.
#include <algorithm>

#include "base/fail.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/outputs.h"
#include "graft/inspect.h"

namespace graft::cli {
namespace {

struct CheckOptions {
  CommonOptions common;
  std::string data;
  std::string test;
  std::string val;
  std::string html;
  bool json = false;
  int most = 20;  // lines of a list in the text
};

nlohmann::json to_json(const Dataset& dataset, const std::vector<Finding>& findings) {
  nlohmann::json out = nlohmann::json::array();
  for (const Finding& finding : findings)
    out.push_back({{"path", dataset.samples[finding.sample].path.string()}, {"why", finding.why}});
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

nlohmann::json document(const Dataset& dataset, const Inspection& found) {
  nlohmann::json classes = nlohmann::json::object();
  for (size_t label = 0; label < dataset.classes.size(); ++label)
    classes[dataset.classes[label]] = found.class_counts[label];
  nlohmann::json splits = nlohmann::json::object();
  for (const Sample& sample : dataset.samples) {
    const std::string name =
        sample.split == Split::unassigned ? "unassigned" : std::string(to_string(sample.split));
    splits[name] = splits.value(name, 0) + 1;
  }
  nlohmann::json out = {
      {"images", dataset.samples.size()}, {"classes", classes},           {"splits", splits},
      {"layout", dataset.understood},     {"imbalance", found.imbalance}, {"notes", dataset.notes}};
  for (const FindingKind& kind : kFindingKinds)
    out[std::string(kind.key)] = to_json(dataset, found.*kind.list);
  for (const GroupKind& kind : kGroupKinds)
    out[std::string(kind.key)] = to_json(dataset, found.*kind.list);
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

 private:
  [[nodiscard]] std::string path(size_t i) const { return printable(dataset_.samples[i].path); }
  void rest(size_t size) const {
    if (size > most_)
      print_result("  … and {} more; --most N shows more, --json all of them\n", size - most_);
  }

  const Dataset& dataset_;
  size_t most_;
};

void print_text(const Dataset& dataset, const Inspection& found, int most) {
  print_result("{}", class_table(dataset));
  print_result("\nunderstood as {}\n", dataset.understood);
  constexpr double kMuch = 3;
  if (found.imbalance >= kMuch)
    print_result(
        "\nimbalance: the largest class has {:.1f} times the smallest one's images; "
        "train with --class-weights balanced\n",
        found.imbalance);
  Text text(dataset, static_cast<size_t>(most));
  for (const GroupKind& kind : kGroupKinds) text.list(kind.title, found.*kind.list);
  for (const FindingKind& kind : kFindingKinds) text.list(kind.title, found.*kind.list);
  for (const std::string& note : dataset.notes) print_result("\nnote: {}\n", note);
  if (!found.any())
    print_result("\nnothing odd found\n");
  else
    print_result("\n'graft train --exclude WORDS' leaves out what was found: {}\n",
                 fmt::join(kExclusions, ", "));
}

int run(const CheckOptions& o) {
  if (!o.html.empty()) refuse_input_as_output(o.html, "--html", {o.data});
  const Dataset dataset = open_dataset(o.data, o.val, o.test);
  const Inspection found = inspect(dataset, InspectionDepth::pixels, o.common.context());
  if (!o.html.empty()) {
    write_file_atomic(o.html, data_page(dataset, found));
    tell_wrote(o.common, o.html);
  }
  if (o.json)
    print_json(document(dataset, found));
  else
    print_text(dataset, found, o.most);
  return 0;
}

}  // namespace

int run_check(int argc, char** argv) {
  CheckOptions o;
  CLI::App app("What is odd about a dataset: damaged, odd and identical images, leaks, labels.",
               "graft check");
  app.add_option("DATA", o.data,
                 "A folder of class folders, one with train/ and test/, or a CSV "
                 "manifest")
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
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft check photos/ --html check.html\n"
      "  graft check photos/train --test photos/test --json\n"
      "Exit code 0 whatever was found; 1 where DATA cannot be read at all.");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
