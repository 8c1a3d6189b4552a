#include "report/confusion.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "report/html.h"

namespace graft {
namespace {

constexpr size_t kMostInClassOrder = 12;
constexpr size_t kMostShown = 200;  // 40,000 cells, which browsers still scroll
constexpr size_t kSmall = 15;       // classes whose cells can be large
constexpr size_t kMostListed = 20;
constexpr size_t kMostLetters = 22;

std::vector<int64_t> row_sums(const Metrics& m) {
  std::vector<int64_t> out;
  for (const auto& row : m.confusion)
    out.push_back(std::accumulate(row.begin(), row.end(), int64_t{0}));
  return out;
}

/// The classes that take part in the most mistakes, in their own order.
std::vector<size_t> most_mistaken(const Metrics& m, size_t most) {
  std::vector<size_t> order(m.confusion.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (order.size() <= most) return order;
  std::vector<int64_t> mistakes(order.size());
  for (size_t r = 0; r < order.size(); ++r)
    for (size_t c = 0; c < order.size(); ++c)
      if (r != c) {
        mistakes[r] += m.confusion[r][c];
        mistakes[c] += m.confusion[r][c];
      }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return mistakes[a] > mistakes[b]; });
  order.resize(most);
  std::sort(order.begin(), order.end());
  return order;
}

/// Rows of classes that grow together: always the two that are most alike on average, put end to
/// end so that the most alike classes meet.
class Seriation {
 public:
  explicit Seriation(std::vector<std::vector<double>> alike) : alike_(std::move(alike)) {
    for (size_t i = 0; i < alike_.size(); ++i) rows_.push_back({i});
    between_ = alike_;
  }

  std::vector<size_t> order() {
    while (merge_best()) {
    }
    std::vector<size_t> out;
    for (const auto& row : rows_) out.insert(out.end(), row.begin(), row.end());
    return out;
  }

 private:
  /// False where nothing is alike any more.
  bool merge_best() {
    size_t a = 0;
    size_t b = 0;
    double best = 0;
    for (size_t i = 0; i < rows_.size(); ++i)
      for (size_t j = i + 1; j < rows_.size(); ++j)
        if (between_[i][j] > best) best = between_[i][j], a = i, b = j;
    if (best <= 0) return false;
    std::vector<size_t>& left = rows_[a];
    std::vector<size_t>& right = rows_[b];
    const std::array<double, 4> joints = {
        alike_[left.back()][right.front()], alike_[left.back()][right.back()],
        alike_[left.front()][right.front()], alike_[left.front()][right.back()]};
    const auto at = std::max_element(joints.begin(), joints.end()) - joints.begin();
    if (at == 2 || at == 3) std::reverse(left.begin(), left.end());
    if (at == 1 || at == 3) std::reverse(right.begin(), right.end());
    const auto n = static_cast<double>(left.size());
    const auto m = static_cast<double>(right.size());
    left.insert(left.end(), right.begin(), right.end());
    for (size_t k = 0; k < rows_.size(); ++k)
      between_[a][k] = between_[k][a] = (n * between_[a][k] + m * between_[b][k]) / (n + m);
    rows_.erase(rows_.begin() + static_cast<std::ptrdiff_t>(b));
    between_.erase(between_.begin() + static_cast<std::ptrdiff_t>(b));
    for (auto& row : between_) row.erase(row.begin() + static_cast<std::ptrdiff_t>(b));
    between_[a][a] = 0;
    return true;
  }

  std::vector<std::vector<double>> alike_;    // of classes
  std::vector<std::vector<double>> between_;  // of rows
  std::vector<std::vector<size_t>> rows_;
};

std::string name_cell(const std::string& name, size_t index, std::string_view scope) {
  return fmt::format("<th scope=\"{}\" data-class=\"{}\" title=\"{}\"><span>{}</span></th>", scope,
                     index, html::escape(name),
                     html::escape(html::shortened_middle(name, kMostLetters)));
}

}  // namespace

std::vector<size_t> confusion_order(const Metrics& m, size_t most) {
  const std::vector<size_t> chosen = most_mistaken(m, most);
  const std::vector<int64_t> sums = row_sums(m);
  std::vector<std::vector<double>> alike(chosen.size(), std::vector<double>(chosen.size()));
  for (size_t i = 0; i < chosen.size(); ++i)
    for (size_t j = 0; j < chosen.size(); ++j) {
      if (i == j || sums[chosen[i]] == 0) continue;
      const double share = static_cast<double>(m.confusion[chosen[i]][chosen[j]]) /
                           static_cast<double>(sums[chosen[i]]);
      alike[i][j] += share;
      alike[j][i] += share;
    }
  std::vector<size_t> out;
  for (const size_t i : Seriation(std::move(alike)).order()) out.push_back(chosen[i]);
  return out;
}

std::string confusion_table(const Metrics& m, const std::vector<std::string>& classes) {
  std::vector<size_t> order(classes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const bool by_confusion = classes.size() > kMostInClassOrder;
  if (by_confusion) order = confusion_order(m, kMostShown);
  const std::vector<int64_t> sums = row_sums(m);
  std::string table = fmt::format(
      "<table class=\"confusion{}\">\n<caption class=\"unseen\">Rows are true classes, columns "
      "predicted ones</caption>\n<thead><tr><td>true ↓ predicted →</td>",
      classes.size() <= kSmall ? " small" : "");
  for (const size_t c : order) table += name_cell(classes[c], c, "col");
  table += "</tr></thead>\n<tbody>\n";
  for (const size_t r : order) {
    table += fmt::format("<tr data-class=\"{}\">{}", r, name_cell(classes[r], r, "row"));
    for (const size_t c : order) {
      const int64_t count = m.confusion[r][c];
      if (count == 0) {
        table += "<td></td>";
        continue;
      }
      // By the root: one in a hundred is still seen.
      const double share = static_cast<double>(count) / static_cast<double>(sums[r]);
      table +=
          fmt::format("<td class=\"{}x{}\">{}</td>", r == c ? "hit " : "",
                      std::clamp(static_cast<int>(std::ceil(std::sqrt(share) * 9)), 1, 9), count);
    }
    table += "</tr>\n";
  }
  std::string out = html::scroll_area("confusion matrix", table + "</tbody></table>", "matrix");
  out +=
      "<p class=\"dim\">Rows are true classes, columns predicted ones; blue cells are right "
      "answers, orange ones mistakes, darker where a larger share of the row went there.";
  if (by_confusion) out += " Classes that are taken for each other stand side by side.";
  if (order.size() < classes.size())
    out += fmt::format(" Of {} classes the {} with the most mistakes are shown.", classes.size(),
                       order.size());
  return out + "</p>\n";
}

std::string confusions_list(const Metrics& m, const std::vector<std::string>& classes) {
  std::vector<std::array<int64_t, 3>> mistakes;  // count, true, predicted
  for (size_t r = 0; r < classes.size(); ++r)
    for (size_t c = 0; c < classes.size(); ++c)
      if (r != c && m.confusion[r][c] > 0)
        mistakes.push_back({m.confusion[r][c], static_cast<int64_t>(r), static_cast<int64_t>(c)});
  if (mistakes.empty()) return "";
  std::stable_sort(mistakes.begin(), mistakes.end(),
                   [](const auto& a, const auto& b) { return a[0] > b[0]; });
  const size_t all = mistakes.size();
  mistakes.resize(std::min(all, kMostListed));
  const std::vector<int64_t> sums = row_sums(m);
  html::Table table{"most frequent mistakes",
                    {{"class", false},
                     {"taken for", false},
                     {"images", true, true},
                     {"of the class", true, true}},
                    {}};
  for (const auto& [count, truth, predicted] : mistakes)
    table.rows.push_back(
        {{html::escape(classes[truth]), html::escape(classes[predicted]), std::to_string(count),
          fmt::format("{:.1f} %",
                      100.0 * static_cast<double>(count) / static_cast<double>(sums[truth]))},
         fmt::format("data-shows=\"{} {}\"", truth, predicted)});
  std::string out = "<h3>Most frequent mistakes</h3>\n" + html::table(table);
  if (all > mistakes.size())
    out += fmt::format("<p class=\"dim\">The first {} of {} kinds.</p>\n", mistakes.size(), all);
  return out;
}

}  // namespace graft
