#include "train/group_features.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/progress.h"
#include "features/cache_fill.h"
#include "train/group.h"

namespace graft {
namespace {

// Of a message: large enough for the network's full speed.
constexpr size_t kMessageBytes = size_t{32} << 20U;

class Extraction {
 public:
  Extraction(const SourceJob& job, const std::string& name, Group& group)
      : job_(job), name_(name), group_(group), fill_(job) {}

  void run() {
    look();
    send();
    const std::vector<size_t> unknown = nowhere();
    if (unknown.empty()) return;
    if (continue_earlier_) {
      // Whichever images a rank has them of: what is not continued is computed.
      std::vector<size_t> mine;
      for (size_t k = static_cast<size_t>(group_.rank()); k < unknown.size();
           k += static_cast<size_t>(group_.size()))
        mine.push_back(unknown[k]);
      fill_.continue_earlier(mine);
      look();
    }
    if (const std::vector<size_t> rest = nowhere(); !rest.empty()) {
      fill_.compute(rest, [&](int view) { return group_.take(fmt::format("{}/{}", name_, view)); });
      look();
    }
    send();
  }

 private:
  /// Waits for all, however long their work takes.
  void meet() { group_.meet(fmt::format("{}/{}", name_, meetings_++)); }

  /// Who has which entries.
  void look() {
    const std::vector<CacheFill::State> states = fill_.look();
    const auto size = static_cast<int64_t>(states.size());
    // For each entry the first rank that has it, and 0 where a rank misses it. Behind them 0 where
    // a rank has something to continue from.
    torch::Tensor all = torch::empty({2 * size + 1}, torch::kInt);
    auto* first = all.data_ptr<int32_t>();
    for (int64_t k = 0; k < size; ++k) {
      const CacheFill::State state = states[static_cast<size_t>(k)];
      first[k] = state == CacheFill::State::there ? group_.rank() : group_.size();
      first[size + k] = state == CacheFill::State::missing ? 0 : 1;
    }
    first[2 * size] = meetings_ == 0 && fill_.has_earlier() ? 0 : 1;
    meet();
    group_.least(all);
    owners_.assign(first, first + size);
    wanted_.resize(states.size());
    for (int64_t k = 0; k < size; ++k) wanted_[static_cast<size_t>(k)] = first[size + k] == 0;
    continue_earlier_ = first[2 * size] == 0;
    states_ = states;
  }

  [[nodiscard]] std::vector<size_t> nowhere() const {
    std::vector<size_t> out;
    for (size_t entry = 0; entry < owners_.size(); ++entry)
      if (wanted_[entry] && owners_[entry] == group_.size()) out.push_back(entry);
    return out;
  }

  /// Entries that some ranks have and others miss.
  void send() {
    std::vector<size_t> entries;
    for (size_t entry = 0; entry < owners_.size(); ++entry)
      if (wanted_[entry] && owners_[entry] < group_.size()) entries.push_back(entry);
    if (entries.empty()) return;
    std::stable_sort(entries.begin(), entries.end(),
                     [&](size_t a, size_t b) { return owners_[a] < owners_[b]; });
    const size_t most = std::max<size_t>(kMessageBytes / (fill_.elements() * sizeof(float)), 1);
    Progress progress(job_.context, job_.label + " of other machines", entries.size(), "images");
    for (size_t begin = 0; begin < entries.size();) {
      size_t end = begin;
      while (end < entries.size() && end < begin + most &&
             owners_[entries[end]] == owners_[entries[begin]])
        ++end;
      send_message({&entries[begin], end - begin});
      begin = end;
      progress.update(begin);
      job_.context.check_stop();
    }
    progress.finish();
  }

  void send_message(std::span<const size_t> entries) {
    const int owner = owners_[entries[0]];
    // Bits of a value of each entry; 0: it is not there any more.
    torch::Tensor bits = torch::zeros({static_cast<int64_t>(entries.size())}, torch::kInt);
    auto* bits_of = bits.data_ptr<int32_t>();
    std::string bytes;
    if (owner == group_.rank()) {
      FeatureSet::Values values;
      for (size_t k = 0; k < entries.size(); ++k) {
        if (!fill_.read(entries[k], values)) continue;
        bits_of[k] = static_cast<int32_t>(values.bits);
        bytes += values.bytes;
      }
    }
    meet();  // disks may be slow
    group_.broadcast(bits, owner);
    const auto size_of = [&](size_t k) {
      return fill_.elements() * static_cast<size_t>(bits_of[k]) / 8;
    };
    size_t total = 0;
    for (size_t k = 0; k < entries.size(); ++k) total += size_of(k);
    if (total == 0) return;
    bytes.resize(total);
    group_.broadcast(torch::from_blob(bytes.data(), {static_cast<int64_t>(total)}, torch::kUInt8),
                     owner);
    std::vector<CacheFill::Received> received;
    size_t at = 0;
    for (size_t k = 0; k < entries.size(); ++k) {
      const size_t size = size_of(k);
      if (size > 0 && states_[entries[k]] == CacheFill::State::missing)
        received.push_back({entries[k],
                            {static_cast<uint32_t>(bits_of[k]),
                             static_cast<uint32_t>(fill_.elements()), bytes.substr(at, size)}});
      at += size;
    }
    if (!received.empty()) fill_.write(std::move(received));
  }

  const SourceJob& job_;
  const std::string& name_;
  Group& group_;
  CacheFill fill_;
  int meetings_ = 0;
  std::vector<CacheFill::State> states_;  // of this rank
  std::vector<int> owners_;               // the first rank that has an entry; size(): none
  std::vector<bool> wanted_;
  bool continue_earlier_ = false;
};

}  // namespace

void extract_together(const SourceJob& job, const std::string& name, Group& group) {
  Extraction(job, name, group).run();
}

}  // namespace graft
