#include "train/shards.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace graft {
namespace {

// Buckets on their way at once.
constexpr size_t kMostAtOnce = 4;
// Halves in front of a compressed row.
constexpr int64_t kScale = 2;

torch::Tensor flat(const torch::Tensor& tensor) { return tensor.detach().view({-1}); }

/// A part that may reach beyond its bucket's end.
void write_part(TensorRow& row, int64_t begin, int64_t end, const torch::Tensor& values) {
  const int64_t count = std::min(values.numel(), end - begin);
  if (count > 0) row.write(begin, values.narrow(0, 0, count));
}

}  // namespace

TensorRow::TensorRow(const std::vector<torch::Tensor>& tensors) : starts_{0} {
  for (const torch::Tensor& tensor : tensors) {
    flat_.push_back(flat(tensor));
    starts_.push_back(starts_.back() + tensor.numel());
  }
}

void TensorRow::each(
    int64_t begin, int64_t end,
    const std::function<void(size_t tensor, int64_t first, int64_t count)>& part) const {
  for (size_t k = 0; k < flat_.size(); ++k) {
    const int64_t from = std::max(begin, starts_[k]);
    const int64_t to = std::min(end, starts_[k + 1]);
    if (from < to) part(k, from - starts_[k], to - from);
  }
}

void TensorRow::read(int64_t begin, const torch::Tensor& out) const {
  int64_t at = 0;
  each(begin, begin + out.numel(), [&](size_t k, int64_t first, int64_t count) {
    out.narrow(0, at, count).copy_(flat_[k].narrow(0, first, count));
    at += count;
  });
  if (at < out.numel()) out.narrow(0, at, out.numel() - at).zero_();
}

void TensorRow::write(int64_t begin, const torch::Tensor& values) {
  int64_t at = 0;
  each(begin, begin + values.numel(), [&](size_t k, int64_t first, int64_t count) {
    flat_[k].narrow(0, first, count).copy_(values.narrow(0, at, count));
    at += count;
  });
}

/// Gradients that travel at once. Rank r owns [begin + r · part, begin + (r + 1) · part), of which
/// the last may reach beyond the end.
struct ParameterShards::Bucket {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t part = 0;
  std::vector<Piece> pieces;  // all
  std::vector<Piece> own;     // this process's
  torch::Tensor received;     // a row from each rank
  std::shared_ptr<Group::Pending> pending;
};

/// Called by autograd once a parameter's gradient is whole.
class ParameterShards::Ready : public torch::autograd::FunctionPostHook {
 public:
  Ready(ParameterShards& shards, size_t parameter) : shards_(shards), parameter_(parameter) {}
  torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                            const torch::autograd::variable_list&) override {
    shards_.parameter_is_ready(parameter_);
    return outputs;
  }

 private:
  ParameterShards& shards_;
  size_t parameter_;
};

ParameterShards::ParameterShards(std::vector<torch::Tensor> parameters,
                                 const std::vector<double>& factors, Group& group,
                                 GradientCompression compression, int64_t at_once)
    : group_(group),
      compression_(compression),
      parameters_(std::move(parameters)),
      row_(parameters_) {
  for (int64_t begin = 0; begin < row_.size(); begin += at_once) {
    Bucket bucket;
    bucket.begin = begin;
    bucket.end = std::min(begin + at_once, row_.size());
    bucket.part = (bucket.end - begin + group.size() - 1) / group.size();
    row_.each(begin, bucket.end, [&](size_t k, int64_t first, int64_t count) {
      bucket.pieces.push_back({k, first, count});
    });
    const int64_t mine = begin + group.rank() * bucket.part;
    row_.each(mine, std::min(mine + bucket.part, bucket.end),
              [&](size_t k, int64_t first, int64_t count) {
                bucket.own.push_back({k, first, count});
                own_.push_back(flat(parameters_[k]).narrow(0, first, count));
                own_factors_.push_back(factors.empty() ? 1 : factors[k]);
              });
    buckets_.push_back(std::move(bucket));
  }
  ready_.resize(parameters_.size());
  made_.resize(parameters_.size());
  for (size_t k = 0; k < parameters_.size(); ++k) {
    // Held, since parameters do not keep theirs alive.
    accumulators_.push_back(torch::autograd::impl::grad_accumulator(parameters_[k]));
    accumulators_.back()->add_post_hook(std::make_unique<Ready>(*this, k));
  }
}

ParameterShards::~ParameterShards() = default;

void ParameterShards::begin_step(bool adds, const PostponedGradients* postponed) {
  adds_ = adds;
  postponed_ = postponed;
  for (torch::Tensor& p : parameters_) p.mutable_grad().reset();
  for (torch::Tensor& p : own_) p.mutable_grad().reset();
  std::fill(ready_.begin(), ready_.end(), false);
  for (size_t k = 0; k < made_.size(); ++k) made_[k] = parameters_[k].size(0);
  next_ = first_ = buckets_.size();
}

void ParameterShards::parameter_is_ready(size_t parameter) {
  const torch::NoGradGuard no_gradients;
  if (ready_[parameter] || is_postponed(parameter)) return;
  ready_[parameter] = true;
  torch::Tensor& gradient = parameters_[parameter].mutable_grad();
  if (!gradient.defined())
    gradient = torch::zeros_like(parameters_[parameter]);
  else if (!adds_)
    gradient.zero_();
  if (!gradient.is_contiguous()) gradient = gradient.contiguous();
  begin_buckets();
}

void ParameterShards::begin_buckets() {
  // In one order in all processes, from the last layers to the first, as backward() goes.
  while (next_ > 0 && std::all_of(buckets_[next_ - 1].pieces.begin(),
                                  buckets_[next_ - 1].pieces.end(), [&](const Piece& piece) {
                                    return ready_[piece.parameter] || is_postponed(piece.parameter);
                                  })) {
    begin_bucket(buckets_[--next_]);
    // What is on its way takes twice its size.
    while (first_ > next_ + kMostAtOnce) finish_bucket(buckets_[--first_]);
  }
}

bool ParameterShards::is_postponed(size_t parameter) const {
  return postponed_ != nullptr && postponed_->has(parameters_[parameter]);
}

/// Whole rows, down to the piece's first.
void ParameterShards::make_postponed(const Piece& piece) {
  const torch::Tensor& weight = parameters_[piece.parameter];
  torch::Tensor& gradient = parameters_[piece.parameter].mutable_grad();
  if (!gradient.defined())
    gradient = adds_ ? torch::empty_like(weight).detach() : torch::zeros_like(weight).detach();
  int64_t& made = made_[piece.parameter];
  const int64_t row = piece.first / weight.size(1);
  if (!adds_ || row >= made) return;
  float* const to = gradient.data_ptr<float>();
  postponed_->compute(weight, row, made,
                      [&](int64_t offset, int64_t count, const float* values, training::Runs runs) {
                        for (int64_t i = 0; i < count; i += static_cast<int64_t>(runs.width))
                          std::copy_n(values + i / static_cast<int64_t>(runs.width) * runs.apart,
                                      std::min(static_cast<int64_t>(runs.width), count - i),
                                      to + offset + i);
                      });
  made = row;
}

void ParameterShards::begin_bucket(Bucket& bucket) {
  const torch::Tensor values = torch::empty({group_.size() * bucket.part});
  int64_t at = 0;
  for (const Piece& piece : bucket.pieces) {
    if (is_postponed(piece.parameter)) make_postponed(piece);
    values.narrow(0, at, piece.count)
        .copy_(flat(parameters_[piece.parameter].grad()).narrow(0, piece.first, piece.count));
    at += piece.count;
  }
  values.narrow(0, at, values.numel() - at).zero_();
  const torch::Tensor parts = packed(values.view({group_.size(), bucket.part}));
  bucket.received = torch::empty_like(parts);
  bucket.pending = group_.begin_exchange(parts, bucket.received);
}

/// Each rank's row; if compressed in 16 bits, behind a scale of two such that is one float: halves
/// reach from 6e-8 to 65,504, gradients are often smaller.
torch::Tensor ParameterShards::packed(const torch::Tensor& values) const {
  if (compression_ == GradientCompression::none) return values;
  torch::Tensor out = torch::empty({values.size(0), values.size(1) + kScale}, torch::kHalf);
  const torch::Tensor rest = out.narrow(1, kScale, values.size(1));
  float scale = 1;
  if (compression_ == GradientCompression::fp16) {
    const auto [least, most] = torch::aminmax(values);
    const float largest = std::max(-least.item<float>(), most.item<float>());
    // Not finite: as it is, so that the owner's sum is not finite either.
    if (largest > 0 && std::isfinite(largest)) {
      int exponent = 0;
      std::frexp(largest, &exponent);
      scale = std::ldexp(1.0F, std::clamp(15 - exponent, -100, 100));
    }
    rest.copy_(values * scale);
  } else {
    rest.view(torch::kBFloat16).copy_(values);
  }
  for (int64_t row = 0; row < out.size(0); ++row)
    std::memcpy(out[row].data_ptr(), &scale, sizeof scale);
  return out;
}

void ParameterShards::add_packed(const torch::Tensor& received, const torch::Tensor& sum) const {
  if (compression_ == GradientCompression::none) {
    sum.add_(received);
    return;
  }
  float scale = 1;
  std::memcpy(&scale, received.data_ptr(), sizeof scale);
  const torch::Tensor rest = received.narrow(0, kScale, received.numel() - kScale);
  if (compression_ == GradientCompression::bf16)
    sum.add_(rest.view(torch::kBFloat16));
  else
    sum.add_(rest.to(torch::kFloat), 1 / scale);
}

/// The sum of all ranks' in the order of the ranks, this one's as it is.
void ParameterShards::finish_bucket(Bucket& bucket) {
  group_.wait(*bucket.pending);
  bucket.pending.reset();
  torch::Tensor sum = torch::zeros({bucket.part});
  for (int rank = 0; rank < group_.size(); ++rank) {
    if (rank != group_.rank()) {
      add_packed(bucket.received[rank], sum);
      continue;
    }
    int64_t at = 0;
    for (const Piece& piece : bucket.own) {
      sum.narrow(0, at, piece.count)
          .add_(flat(parameters_[piece.parameter].grad())
                    .narrow(0, piece.first, piece.count)
                    .to(torch::kCPU));
      at += piece.count;
    }
  }
  int64_t at = 0;
  for (const Piece& piece : bucket.own) {
    flat(parameters_[piece.parameter].grad())
        .narrow(0, piece.first, piece.count)
        .copy_(sum.narrow(0, at, piece.count));
    at += piece.count;
  }
  bucket.received.reset();
}

void ParameterShards::finish_gradients() {
  const torch::NoGradGuard no_gradients;
  for (size_t k = parameters_.size(); k-- > 0;) parameter_is_ready(k);
  begin_buckets();
  while (first_ > 0) finish_bucket(buckets_[--first_]);
  size_t i = 0;
  for (const Bucket& bucket : buckets_)
    for (const Piece& piece : bucket.own)
      own_[i++].mutable_grad() =
          flat(parameters_[piece.parameter].grad()).narrow(0, piece.first, piece.count);
}

void ParameterShards::share_parameters() {
  const torch::NoGradGuard no_gradients;
  for (const Bucket& bucket : buckets_) {
    const torch::Tensor mine = torch::empty({bucket.part});
    row_.read(bucket.begin + group_.rank() * bucket.part, mine);
    const std::vector<torch::Tensor> all = group_.all_gather(mine);
    for (int owner = 0; owner < group_.size(); ++owner)
      if (owner != group_.rank())
        write_part(row_, bucket.begin + owner * bucket.part, bucket.end,
                   all[static_cast<size_t>(owner)]);
  }
}

std::vector<torch::Tensor> ParameterShards::gather(const std::vector<torch::Tensor>& mine) const {
  const torch::NoGradGuard no_gradients;
  std::vector<torch::Tensor> whole;
  if (group_.is_first())
    for (const torch::Tensor& p : parameters_)
      whole.push_back(torch::empty_like(p, torch::TensorOptions(torch::kCPU)).detach());
  TensorRow to(whole);
  const TensorRow from(mine);
  int64_t at = 0;
  for (const Bucket& bucket : buckets_) {
    const torch::Tensor part = torch::zeros({bucket.part});
    const int64_t count = own_size(bucket);
    from.read(at, part.narrow(0, 0, count));
    at += count;
    const std::vector<torch::Tensor> all = group_.gather(part);
    for (size_t owner = 0; owner < all.size(); ++owner)
      write_part(to, bucket.begin + static_cast<int64_t>(owner) * bucket.part, bucket.end,
                 all[owner]);
  }
  return whole;
}

void ParameterShards::scatter(const std::vector<torch::Tensor>& whole,
                              const std::vector<torch::Tensor>& mine) const {
  const torch::NoGradGuard no_gradients;
  const TensorRow from(whole);
  TensorRow to(mine);
  int64_t at = 0;
  for (const Bucket& bucket : buckets_) {
    std::vector<torch::Tensor> parts;
    if (group_.is_first())
      for (int owner = 0; owner < group_.size(); ++owner) {
        parts.push_back(torch::empty({bucket.part}));
        from.read(bucket.begin + owner * bucket.part, parts.back());
      }
    const torch::Tensor part = torch::empty({bucket.part});
    group_.scatter(parts, part);
    const int64_t count = own_size(bucket);
    to.write(at, part.narrow(0, 0, count));
    at += count;
  }
}

int64_t ParameterShards::own_size(const Bucket& bucket) const {
  int64_t size = 0;
  for (const Piece& piece : bucket.own) size += piece.count;
  return size;
}

}  // namespace graft
