#include "train/shards.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace graft {
namespace {

// Large enough for the network's full speed, small enough that several are on their way while
// backward() runs: as PyTorch's DistributedDataParallel has it.
constexpr int64_t kBucket = 25'000'000 / sizeof(float);

torch::Tensor flat(const torch::Tensor& tensor) { return tensor.detach().view({-1}); }

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

/// A part of a slice that travels at once.
struct ParameterShards::Bucket {
  int64_t begin = 0;
  int64_t end = 0;
  int owner = 0;
  std::vector<Piece> pieces;
  torch::Tensor values;  // on their way
  bool copied = false;   // else they are the gradient itself
  std::shared_ptr<Group::Pending> pending;
  std::vector<torch::Tensor> received;  // compressed, of each rank, in the owner
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
                                 GradientCompression compression)
    : group_(group),
      compression_(compression),
      parameters_(std::move(parameters)),
      row_(parameters_) {
  slice_ = (row_.size() + group.size() - 1) / group.size();
  for (int owner = 0; owner < group.size(); ++owner) {
    const int64_t last = std::min((owner + 1) * slice_, row_.size());
    for (int64_t begin = owner * slice_; begin < last; begin += kBucket) {
      Bucket bucket;
      bucket.begin = begin;
      bucket.end = std::min(begin + kBucket, last);
      bucket.owner = owner;
      row_.each(bucket.begin, bucket.end, [&](size_t k, int64_t first, int64_t count) {
        bucket.pieces.push_back({k, first, count});
      });
      buckets_.push_back(std::move(bucket));
    }
  }
  const int64_t mine = group.rank() * slice_;
  row_.each(mine, mine + slice_, [&](size_t k, int64_t first, int64_t count) {
    pieces_.push_back({k, first, count});
    own_.push_back(flat(parameters_[k]).narrow(0, first, count));
    own_factors_.push_back(factors.empty() ? 1 : factors[k]);
  });
  ready_.resize(parameters_.size());
  for (size_t k = 0; k < parameters_.size(); ++k) {
    // Held, since parameters do not keep theirs alive.
    accumulators_.push_back(torch::autograd::impl::grad_accumulator(parameters_[k]));
    accumulators_.back()->add_post_hook(std::make_unique<Ready>(*this, k));
  }
}

ParameterShards::~ParameterShards() = default;

void ParameterShards::begin_step(bool adds) {
  adds_ = adds;
  for (torch::Tensor& p : parameters_) p.mutable_grad().reset();
  for (torch::Tensor& p : own_) p.mutable_grad().reset();
  std::fill(ready_.begin(), ready_.end(), false);
  next_ = buckets_.size();
}

void ParameterShards::parameter_is_ready(size_t parameter) {
  const torch::NoGradGuard no_gradients;
  if (ready_[parameter]) return;
  ready_[parameter] = true;
  torch::Tensor& gradient = parameters_[parameter].mutable_grad();
  if (!gradient.defined())
    gradient = torch::zeros_like(parameters_[parameter]);
  else if (!adds_)
    gradient.zero_();
  if (!gradient.is_contiguous()) gradient = gradient.contiguous();
  // In one order in all processes, from the last layers to the first, as backward() goes.
  while (next_ > 0 &&
         std::all_of(buckets_[next_ - 1].pieces.begin(), buckets_[next_ - 1].pieces.end(),
                     [&](const Piece& piece) { return ready_[piece.parameter]; }))
    begin_bucket(buckets_[--next_]);
}

void ParameterShards::begin_bucket(Bucket& bucket) {
  const auto gradient = [&](const Piece& piece) {
    return flat(parameters_[piece.parameter].grad()).narrow(0, piece.first, piece.count);
  };
  bucket.copied = bucket.pieces.size() > 1 || !parameters_[0].device().is_cpu();
  if (bucket.copied) {
    bucket.values = torch::empty({bucket.end - bucket.begin});
    int64_t at = 0;
    for (const Piece& piece : bucket.pieces) {
      bucket.values.narrow(0, at, piece.count).copy_(gradient(piece));
      at += piece.count;
    }
  } else {
    bucket.values = gradient(bucket.pieces[0]);
  }
  if (compression_ == GradientCompression::none)
    bucket.pending = group_.begin_reduce(bucket.values, bucket.owner);
  else
    // Gloo would add up halves in halves, and knows no bfloat16: each rank's go to the owner.
    bucket.pending = group_.begin_gather(compressed(bucket.values), bucket.owner, bucket.received);
}

/// Values of 16 bits, behind a scale of two such that is one float: halves reach from 6e-8 to
/// 65,504, gradients are often smaller.
torch::Tensor ParameterShards::compressed(const torch::Tensor& values) const {
  const int64_t size = values.numel();
  torch::Tensor out = torch::empty({size + 2}, torch::kHalf);
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
    out.narrow(0, 2, size).copy_(values * scale);
  } else {
    out.narrow(0, 2, size).view(torch::kBFloat16).copy_(values);
  }
  std::memcpy(out.data_ptr(), &scale, sizeof scale);
  return out;
}

void ParameterShards::add_compressed(const torch::Tensor& received,
                                     const torch::Tensor& sum) const {
  float scale = 1;
  std::memcpy(&scale, received.data_ptr(), sizeof scale);
  const torch::Tensor rest = received.narrow(0, 2, received.numel() - 2);
  if (compression_ == GradientCompression::bf16)
    sum.add_(rest.view(torch::kBFloat16));
  else
    sum.add_(rest.to(torch::kFloat), 1 / scale);
}

void ParameterShards::finish_gradients() {
  const torch::NoGradGuard no_gradients;
  for (size_t k = parameters_.size(); k-- > 0;) parameter_is_ready(k);
  for (size_t i = buckets_.size(); i-- > 0;) {
    Bucket& bucket = buckets_[i];
    group_.wait(*bucket.pending);
    bucket.pending.reset();
    if (compression_ != GradientCompression::none && bucket.owner == group_.rank())
      for (int rank = 0; rank < group_.size(); ++rank)
        if (rank != bucket.owner)
          add_compressed(bucket.received[static_cast<size_t>(rank)], bucket.values);
    bucket.received.clear();
    if (bucket.copied && bucket.owner == group_.rank()) {
      int64_t at = 0;
      for (const Piece& piece : bucket.pieces) {
        flat(parameters_[piece.parameter].grad())
            .narrow(0, piece.first, piece.count)
            .copy_(bucket.values.narrow(0, at, piece.count));
        at += piece.count;
      }
    }
    bucket.values.reset();
  }
  for (size_t i = 0; i < pieces_.size(); ++i)
    own_[i].mutable_grad() = flat(parameters_[pieces_[i].parameter].grad())
                                 .narrow(0, pieces_[i].first, pieces_[i].count);
}

void ParameterShards::share_parameters() {
  const torch::NoGradGuard no_gradients;
  const int64_t at_once = std::max<int64_t>(kBucket / group_.size(), 1);
  for (int64_t begin = 0; begin < slice_; begin += at_once) {
    const int64_t count = std::min(at_once, slice_ - begin);
    const torch::Tensor mine = torch::empty({count});
    row_.read(group_.rank() * slice_ + begin, mine);
    const std::vector<torch::Tensor> all = group_.all_gather(mine);
    for (int owner = 0; owner < group_.size(); ++owner)
      if (owner != group_.rank())
        row_.write(owner * slice_ + begin, all[static_cast<size_t>(owner)]);
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
  const int64_t at_once = std::max<int64_t>(kBucket / group_.size(), 1);
  for (int64_t begin = 0; begin < slice_; begin += at_once) {
    const torch::Tensor part = torch::empty({std::min(at_once, slice_ - begin)});
    from.read(begin, part);
    const std::vector<torch::Tensor> all = group_.gather(part);
    for (size_t owner = 0; owner < all.size(); ++owner)
      to.write(static_cast<int64_t>(owner) * slice_ + begin, all[owner]);
  }
  return whole;
}

void ParameterShards::scatter(const std::vector<torch::Tensor>& whole,
                              const std::vector<torch::Tensor>& mine) const {
  const torch::NoGradGuard no_gradients;
  const TensorRow from(whole);
  TensorRow to(mine);
  const int64_t at_once = std::max<int64_t>(kBucket / group_.size(), 1);
  for (int64_t begin = 0; begin < slice_; begin += at_once) {
    const int64_t count = std::min(at_once, slice_ - begin);
    std::vector<torch::Tensor> parts;
    if (group_.is_first())
      for (int owner = 0; owner < group_.size(); ++owner) {
        parts.push_back(torch::empty({count}));
        from.read(owner * slice_ + begin, parts.back());
      }
    const torch::Tensor part = torch::empty({count});
    group_.scatter(parts, part);
    to.write(begin, part);
  }
}

}  // namespace graft
