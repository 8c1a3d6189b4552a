#include "train/torch_executor.h"

#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "base/fail.h"
#include "engine/fold.h"
#include "train/device.h"

namespace graft {
namespace {

using engine::Affine;
using engine::EngineMemory;
using engine::EngineOptions;
using engine::FoldedLayer;

// One batch is computed while the next goes to the device and the last comes back.
constexpr size_t kLanes = 2;

torch::Tensor copy_of(const std::vector<float>& values, std::vector<int64_t> shape) {
  torch::Tensor tensor = torch::empty(shape);
  std::copy(values.begin(), values.end(), tensor.data_ptr<float>());
  return tensor;
}

/// How convolutions see their maps. Tensor cores and oneDNN read channels last; cuDNN's fast
/// kernels for float32 without tensor cores do not.
at::MemoryFormat format_of(const torch::Device& device, Precision precision) {
  return device.is_cpu() || precision == Precision::bf16 ? at::MemoryFormat::ChannelsLast
                                                         : at::MemoryFormat::Contiguous;
}

at::ScalarType type_of(Precision precision) {
  return precision == Precision::bf16 ? at::kBFloat16 : at::kFloat;
}

/// Layers with their weights on a device. Never changes; thread-safe.
class TorchLayers {
 public:
  TorchLayers(const torch::Device& device, const Network& network, size_t begin, size_t end,
              const TensorMap& tensors, Precision precision)
      : device_(device),
        type_(type_of(precision)),
        format_(format_of(device, precision)),
        shapes_(output_shapes(network)),
        in_(shapes_.at(begin > 0 ? begin - 1 : 0)),
        out_(shapes_.at(end > 0 ? end - 1 : 0)) {
    for (const TensorSpec& spec : tensor_specs(network, begin, end))
      static_cast<void>(need_tensor(tensors, spec));
    for (size_t i = begin; i < end; ++i) i = add(network, i, end, tensors);
  }

  [[nodiscard]] const torch::Device& device() const { return device_; }
  [[nodiscard]] const Shape& in() const { return in_; }
  [[nodiscard]] const Shape& out() const { return out_; }
  /// Bytes of weights.
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  /// Floats of one image's largest activations, of two layers that follow each other.
  [[nodiscard]] uint64_t widest() const { return widest_; }

  /// `x`: (rows, C, H, W) or (rows, C), float32, on the device. Returns what run() is to give.
  [[nodiscard]] torch::Tensor forward(torch::Tensor x) const {
    for (const Step& step : steps_) x = apply(step, x);
    return x.to(at::kFloat).contiguous();
  }

 private:
  struct Step {
    LayerKind kind;
    Window window;
    bool relu;
    torch::Tensor weight;  // batchnorm: its scale
    torch::Tensor bias;    // batchnorm: its shift
  };

  /// Adds layer i, with what is folded into it; returns the last layer done.
  size_t add(const Network& network, size_t i, size_t end, const TensorMap& tensors) {
    const Layer& layer = network.layers[i];
    size_t last = i;
    Step step{layer.kind, layer.window, layer.relu, {}, {}};
    switch (layer.kind) {
      case LayerKind::input:
      case LayerKind::dropout:
        return i;
      case LayerKind::conv:
      case LayerKind::dense: {
        const FoldedLayer folded = engine::fold_layer(network, i, end, tensors);
        if (engine::takes_batchnorm(network, i, end)) ++last;
        step.relu = folded.relu;
        step.weight = copy_of(folded.weight, weight_shape(network, i));
        step.bias = copy_of(folded.bias, {layer.outputs});
        if (layer.kind == LayerKind::conv) {
          // On this machine: what is queued on one stream of a GPU is not seen by the others.
          step.weight = step.weight.to(type_).contiguous(format_);
          step.bias = step.bias.to(type_);
        }
        break;
      }
      case LayerKind::batchnorm: {
        const Affine affine = engine::batchnorm_affine(network, i, tensors);
        const auto channels = static_cast<int64_t>(affine.scale.size());
        const std::vector<int64_t> shape = shapes_[i].flat
                                               ? std::vector<int64_t>{1, channels}
                                               : std::vector<int64_t>{1, channels, 1, 1};
        step.weight = copy_of(affine.scale, shape);
        step.bias = copy_of(affine.shift, shape);
        break;
      }
      case LayerKind::maxpool:
      case LayerKind::gap:
      case LayerKind::gmp:
      case LayerKind::stats:
      case LayerKind::flatten:
        break;
    }
    for (torch::Tensor* tensor : {&step.weight, &step.bias})
      if (tensor->defined()) {
        bytes_ += tensor->nbytes();
        *tensor = tensor->to(device_);
      }
    const Shape& from = shapes_[layer.source()];
    widest_ = std::max(widest_, static_cast<uint64_t>(from.elements() + shapes_[last].elements()));
    steps_.push_back(std::move(step));
    return last;
  }

  static std::vector<int64_t> weight_shape(const Network& network, size_t i) {
    return tensor_specs(network, i, i + 1).front().shape;
  }

  [[nodiscard]] torch::Tensor apply(const Step& step, torch::Tensor x) const {
    const Window& w = step.window;
    switch (step.kind) {
      case LayerKind::conv:
        x = at::conv2d(x.to(type_).contiguous(format_), step.weight, step.bias, w.stride, w.padding,
                       1, w.groups);
        break;
      case LayerKind::dense:
        x = at::linear(x.to(at::kFloat), step.weight, step.bias);
        break;
      case LayerKind::batchnorm:
        x = x.to(at::kFloat) * step.weight + step.bias;
        break;
      case LayerKind::maxpool:
        x = at::max_pool2d(x, w.kernel, w.stride);
        break;
      case LayerKind::gap:
        x = x.to(at::kFloat).mean({2, 3});
        break;
      case LayerKind::gmp:
        x = x.amax({2, 3});
        break;
      case LayerKind::stats: {
        const torch::Tensor maps = x.to(at::kFloat).flatten(2);
        x = torch::cat({maps.mean(2), maps.amax(2), maps.var(2, /*unbiased=*/false).sqrt()}, 1);
        break;
      }
      case LayerKind::flatten:
        x = x.contiguous().flatten(1);
        break;
      case LayerKind::input:
      case LayerKind::dropout:
        break;
    }
    return step.relu ? x.relu_() : x;
  }

  torch::Device device_;
  at::ScalarType type_;
  at::MemoryFormat format_;
  std::vector<Shape> shapes_;
  Shape in_;
  Shape out_;
  std::vector<Step> steps_;
  uint64_t bytes_ = 0;
  uint64_t widest_ = 0;
};

/// Buffers and a stream for one batch on its way. One thread at a time.
class Lane {
 public:
  Lane(const TorchLayers& layers, int64_t rows)
      : layers_(layers), rows_(rows), in_(buffer(layers.in())), out_(buffer(layers.out())) {
    if (layers.device().is_cpu()) return;
    const c10::impl::VirtualGuardImpl device(layers.device().type());
    stream_ = device.getStreamFromGlobalPool(layers.device());
  }

  [[nodiscard]] uint64_t bytes() const { return in_.nbytes() + out_.nbytes(); }

  /// At most `rows` images, in a step of exactly `step` of them.
  void run(const float* in, int64_t count, int64_t step, float* out) {
    auto* to = in_.data_ptr<float>();
    std::copy_n(in, count * layers_.in().elements(), to);
    compute(step);
    std::copy_n(out_.data_ptr<float>(), count * layers_.out().elements(), out);
  }

  /// On whatever is in the buffers.
  void compute(int64_t step) {
    const c10::InferenceMode mode;
    c10::OptionalStreamGuard on_stream;
    // LibTorch's own team computes on the processor; two at once would share its cores.
    static std::mutex processor;
    std::unique_lock<std::mutex> alone;
    if (stream_)
      on_stream.reset_stream(*stream_);
    else
      alone = std::unique_lock(processor);
    const torch::Tensor x =
        in_.narrow(0, 0, step).to(layers_.device(), at::kFloat, /*non_blocking=*/true);
    out_.narrow(0, 0, step).copy_(layers_.forward(x), /*non_blocking=*/true);
    if (stream_) stream_->synchronize();
  }

 private:
  /// Zeros: what no image fills is computed too, and must not be slow (denormals) or raise flags.
  [[nodiscard]] torch::Tensor buffer(const Shape& shape) const {
    std::vector<int64_t> sizes{rows_, shape.channels};
    if (!shape.flat) sizes.insert(sizes.end(), {shape.height, shape.width});
    return torch::zeros(sizes, torch::TensorOptions().pinned_memory(!layers_.device().is_cpu()));
  }

  const TorchLayers& layers_;
  int64_t rows_;
  torch::Tensor in_;
  torch::Tensor out_;
  std::optional<c10::Stream> stream_;
};

/// Weights and lanes, which executors share.
class TorchState {
 public:
  TorchState(TorchLayers layers, int rows) : layers_(std::move(layers)), rows_(rows) {
    for (std::optional<Lane>& lane : lanes_) lane.emplace(layers_, rows_);
  }

  [[nodiscard]] const TorchLayers& layers() const { return layers_; }
  [[nodiscard]] int rows() const { return rows_; }

  EngineMemory prepare() {
    // On a GPU libraries are loaded and kernels chosen with the first batch.
    if (!layers_.device().is_cpu() && !used_.exchange(true))
      with_lane([&](Lane& lane) { lane.compute(rows_); });
    return {layers_.bytes(), kLanes * lanes_.front()->bytes()};
  }

  void run(const float* in, int count, float* out, bool exact) {
    with_lane([&](Lane& lane) {
      for (int done = 0; done < count; done += rows_) {
        const int n = std::min(rows_, count - done);
        lane.run(in + done * layers_.in().elements(), n, exact ? n : rows_,
                 out + done * layers_.out().elements());
      }
    });
  }

 private:
  template <typename F>
  void with_lane(F use) {
    const size_t k = take();
    try {
      use(*lanes_[k]);
    } catch (const c10::Error& error) {
      give_back(k);
      fail_on(layers_.device(), error);
    } catch (...) {
      give_back(k);
      throw;
    }
    give_back(k);
  }

  size_t take() {
    std::unique_lock lock(mutex_);
    while (true) {
      for (size_t k = 0; k < kLanes; ++k)
        if (!busy_[k]) {
          busy_[k] = true;
          return k;
        }
      freed_.wait(lock);
    }
  }

  void give_back(size_t k) {
    {
      const std::lock_guard lock(mutex_);
      busy_[k] = false;
    }
    freed_.notify_one();
  }

  const TorchLayers layers_;
  const int rows_;
  std::array<std::optional<Lane>, kLanes> lanes_;  // each of whoever took it
  std::atomic<bool> used_ = false;
  std::mutex mutex_;
  std::condition_variable freed_;
  std::array<bool, kLanes> busy_{};
};

class TorchExecutor final : public engine::Executor {
 public:
  TorchExecutor(std::shared_ptr<TorchState> state, bool single_plan)
      : state_(std::move(state)), single_plan_(single_plan) {}

  [[nodiscard]] int64_t input_elements() const override { return state_->layers().in().elements(); }
  [[nodiscard]] int64_t output_elements() const override {
    return state_->layers().out().elements();
  }
  [[nodiscard]] int max_batch() const override { return state_->rows(); }
  [[nodiscard]] int lanes() const override { return static_cast<int>(kLanes); }

  [[nodiscard]] uint64_t estimate(int) const override {
    const TorchLayers& layers = state_->layers();
    const auto ends = static_cast<uint64_t>(layers.in().elements() + layers.out().elements());
    uint64_t floats = kLanes * ends;
    uint64_t bytes = 0;
    if (layers.device().is_cpu()) {
      floats += layers.widest();
      bytes = layers.bytes();
    }
    return bytes + floats * sizeof(float) * static_cast<uint64_t>(state_->rows());
  }

  EngineMemory prepare(int) override { return state_->prepare(); }

  void run(const float* in, int count, float* out) override {
    state_->run(in, count, out, single_plan_);
  }

  [[nodiscard]] std::unique_ptr<Executor> beside(const EngineOptions& options) const override {
    return std::make_unique<TorchExecutor>(state_, options.single_plan);
  }

 private:
  std::shared_ptr<TorchState> state_;
  bool single_plan_;
};

}  // namespace

std::unique_ptr<engine::Executor> make_torch_executor(const torch::Device& device, int rows,
                                                      const Network& network, size_t begin,
                                                      size_t end, const TensorMap& tensors,
                                                      const EngineOptions& options) {
  // Throws, in a sentence, where the device has no such precision.
  if (options.precision == Precision::bf16) probe_device(device, options.precision, 1);
  try {
    return std::make_unique<TorchExecutor>(
        std::make_shared<TorchState>(
            TorchLayers(device, network, begin, end, tensors, options.precision), rows),
        options.single_plan);
  } catch (const c10::Error& error) {
    fail_on(device, error);
  }
}

std::vector<float> probe_device(const torch::Device& device, Precision precision, int rows) {
  constexpr int64_t kChannels = 64;
  constexpr int64_t kSide = 14;
  constexpr int64_t kUnits = 128;
  const c10::InferenceMode mode;
  // Numbers with all their digits, so that every sum is rounded.
  const auto numbers = [](std::vector<int64_t> shape) {
    torch::Tensor tensor = torch::empty(shape);
    auto* value = tensor.data_ptr<float>();
    uint32_t state = 1;
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      state = state * 1'664'525U + 1'013'904'223U;  // Numerical Recipes
      value[i] = static_cast<float>(state) / 4'294'967'296.0F - 0.5F;
    }
    return tensor;
  };
  const at::ScalarType type = type_of(precision);
  const at::MemoryFormat format = format_of(device, precision);
  try {
    const torch::Tensor maps = numbers({rows, kChannels, kSide, kSide}).to(type).contiguous(format);
    const torch::Tensor kernels = numbers({kChannels, kChannels, 3, 3}).to(type).contiguous(format);
    const torch::Tensor convolved =
        at::conv2d(maps.to(device), kernels.to(device), torch::Tensor(), 1, 1);
    const torch::Tensor units =
        at::linear(convolved.to(at::kFloat).mean({2, 3}), numbers({kUnits, kChannels}).to(device));
    std::vector<float> out;
    for (const torch::Tensor& each : {convolved, units}) {
      const torch::Tensor values = each.to(at::kFloat).cpu().contiguous();
      out.insert(out.end(), values.data_ptr<float>(), values.data_ptr<float>() + values.numel());
    }
    return out;
  } catch (const c10::OutOfMemoryError& error) {
    fail_on(device, error);
  } catch (const c10::Error& error) {
    if (precision != Precision::bf16) fail_on(device, error);
    fail(ErrorKind::usage, "`precision` bf16: {} has none, says LibTorch: {}; use fp32",
         TorchDevice(device).name(), first_line(error));
  }
}

}  // namespace graft
