// The engine on oneDNN: one chain of primitives for each batch size in use.
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <dnnl.hpp>
#include <functional>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "base/threads.h"
#include "engine/engine.h"
#include "engine/fold.h"
#include "engine/pooling.h"
#include "graft/error.h"

namespace graft {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

constexpr auto kFloat = memory::data_type::f32;

memory::desc plain_desc(int64_t n, const Shape& shape) {
  if (shape.flat) return {{n, shape.channels}, kFloat, Tag::nc};
  return {{n, shape.channels, shape.height, shape.width}, kFloat, Tag::nchw};
}

memory::desc any_desc(int64_t n, const Shape& shape) {
  if (shape.flat) return {{n, shape.channels}, kFloat, Tag::any};
  return {{n, shape.channels, shape.height, shape.width}, kFloat, Tag::any};
}

}  // namespace

struct Engine::State {
  /// One chain for one batch size. Activations alternate between two buffers.
  struct Plan {
    std::vector<std::function<void()>> steps;
    std::vector<memory> buffers;  // two
    memory input;
    memory output;  // plain layout
  };

  Network network;
  size_t begin;
  size_t end;
  EngineOptions options;
  std::vector<Shape> shapes;
  Shape in_shape;
  Shape out_shape;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<size_t, FoldedLayer> folded;  // convolutions and dense layers by index
  std::map<size_t, Affine> affines;      // BatchNorms that stand alone, by index
  std::map<std::pair<size_t, std::string>, memory> packed;  // weights by layer and layout
  std::map<int, Plan> plans;
  std::mutex mutex;

  State(const Network& net, size_t first, size_t last, const TensorMap& tensors,
        const EngineOptions& opts)
      : network(net),
        begin(std::max<size_t>(first, 1)),
        end(last),
        options(opts),
        shapes(output_shapes(net)) {
    if (options.threads < 1) options.threads = available_processors();
    in_shape = shapes[begin - 1];
    out_shape = shapes[std::max(end, begin) - 1];
    for (size_t i = begin; i < end; ++i) {
      const LayerKind kind = network.layers[i].kind;
      if (kind == LayerKind::conv || kind == LayerKind::dense) {
        FoldedLayer layer = fold_layer(network, i, end, tensors);
        const bool skip = layer.took_batchnorm;
        folded.emplace(i, std::move(layer));
        if (skip) ++i;
      } else if (kind == LayerKind::batchnorm) {
        affines.emplace(i, batchnorm_affine(network, i, tensors));
      }
    }
  }

  /// Weights of a layer in the layout that a primitive asks for; packed once per layout.
  const memory& packed_weights(size_t index, const memory::desc& plain,
                               const memory::desc& wanted) {
    std::string key(reinterpret_cast<const char*>(&wanted.data), sizeof(wanted.data));
    const auto [at, fresh] = packed.try_emplace({index, std::move(key)});
    if (fresh) {
      memory source(plain, engine, folded.at(index).weight.data());
      at->second = memory(wanted, engine);
      dnnl::reorder(source, at->second).execute(stream, source, at->second);
      stream.wait();
    }
    return at->second;
  }

  memory bias(size_t index) {
    std::vector<float>& values = folded.at(index).bias;
    return {{{static_cast<int64_t>(values.size())}, kFloat, Tag::x}, engine, values.data()};
  }

  class Builder;
  Plan& plan(int count);
  void run(const float* in, int count, float* out);
};

/// Appends steps to a plan, keeping track of where the activations are and in which layout.
class Engine::State::Builder {
 public:
  Builder(State& state, Plan& plan, int count) : s_(state), plan_(plan), n_(count) {
    current_ = memory(plain_desc(n_, s_.in_shape), s_.engine, nullptr);
    plan_.input = current_;
    // Blocked layouts round channels up to 16 at most.
    size_t most = 0;
    for (size_t i = s_.begin - 1; i < s_.end; ++i) {
      const Shape& shape = s_.shapes[i];
      const auto padded = static_cast<size_t>((shape.channels + 15) / 16 * 16);
      most = std::max(most, padded * shape.height * shape.width);
    }
    most *= static_cast<size_t>(n_) * sizeof(float);
    const memory::desc bytes({static_cast<int64_t>(most)}, memory::data_type::u8, Tag::x);
    plan_.buffers = {memory(bytes, s_.engine), memory(bytes, s_.engine)};
  }

  void build() {
    for (size_t i = s_.begin; i < s_.end; ++i) {
      const Layer& layer = s_.network.layers[i];
      switch (layer.kind) {
        case LayerKind::conv:
          add_convolution(i);
          if (s_.folded.at(i).took_batchnorm) ++i;
          break;
        case LayerKind::dense:
          add_dense(i);
          if (s_.folded.at(i).took_batchnorm) ++i;
          break;
        case LayerKind::maxpool:
          add_pooling(i);
          break;
        case LayerKind::gap:
        case LayerKind::gmp:
        case LayerKind::stats:
          add_global_pooling(i);
          break;
        case LayerKind::batchnorm:
          add_affine(i);
          break;
        case LayerKind::flatten:
          make_plain(s_.shapes[i - 1]);
          leave_input();
          current_ = memory(plain_desc(n_, s_.shapes[i]), s_.engine, current_.get_data_handle());
          break;
        case LayerKind::dropout:
        case LayerKind::input:
          break;
      }
    }
    make_plain(s_.out_shape);
    plan_.output = current_;
  }

 private:
  /// A memory of that layout in the buffer that does not hold the current activations.
  memory next(const memory::desc& desc) {
    which_ = 1 - which_;
    return {desc, s_.engine, plan_.buffers[which_].get_data_handle()};
  }

  void move_to(const memory::desc& desc) {
    if (current_.get_desc() == desc) return;
    memory from = current_;
    memory to = next(desc);
    const dnnl::reorder reorder(from, to);
    plan_.steps.emplace_back([this_stream = s_.stream, reorder, from, to]() mutable {
      reorder.execute(this_stream, from, to);
    });
    current_ = to;
  }

  /// Copies the caller's input, which has no address yet and must not be changed, to a buffer.
  void leave_input() {
    if (current_.get_data_handle() != nullptr) return;
    const memory from = current_;
    const memory to = next(current_.get_desc());
    plan_.steps.emplace_back([from, to] {
      std::memcpy(to.get_data_handle(), from.get_data_handle(), from.get_desc().get_size());
    });
    current_ = to;
  }

  void make_plain(const Shape& shape) { move_to(plain_desc(n_, shape)); }

  void execute(const dnnl::primitive& primitive, std::unordered_map<int, memory> arguments) {
    plan_.steps.emplace_back([this_stream = s_.stream, primitive, arguments]() {
      primitive.execute(this_stream, arguments);
    });
  }

  static dnnl::primitive_attr relu_attribute(bool relu) {
    dnnl::primitive_attr attribute;
    if (relu) {
      dnnl::post_ops ops;
      ops.append_eltwise(1.0F, dnnl::algorithm::eltwise_relu, 0.0F, 0.0F);
      attribute.set_post_ops(ops);
    }
    return attribute;
  }

  void add_convolution(size_t i) {
    const int64_t C = s_.shapes[i - 1].channels;
    const int64_t K = s_.shapes[i].channels;
    const memory::desc plain({K, C, 3, 3}, kFloat, Tag::oihw);
    const dnnl::convolution_forward::desc desc(
        dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct,
        any_desc(n_, s_.shapes[i - 1]), memory::desc({K, C, 3, 3}, kFloat, Tag::any),
        memory::desc({K}, kFloat, Tag::x), any_desc(n_, s_.shapes[i]), {1, 1}, {1, 1}, {1, 1});
    const dnnl::convolution_forward::primitive_desc pd(desc, relu_attribute(s_.folded.at(i).relu),
                                                       s_.engine);
    move_to(pd.src_desc());
    const memory from = current_;
    current_ = next(pd.dst_desc());
    execute(dnnl::convolution_forward(pd),
            {{DNNL_ARG_SRC, from},
             {DNNL_ARG_WEIGHTS, s_.packed_weights(i, plain, pd.weights_desc())},
             {DNNL_ARG_BIAS, s_.bias(i)},
             {DNNL_ARG_DST, current_}});
  }

  void add_dense(size_t i) {
    const int64_t C = s_.shapes[i - 1].channels;
    const int64_t K = s_.shapes[i].channels;
    const memory::desc plain({K, C}, kFloat, Tag::oi);
    const dnnl::inner_product_forward::desc desc(
        dnnl::prop_kind::forward_inference, plain_desc(n_, s_.shapes[i - 1]),
        memory::desc({K, C}, kFloat, Tag::any), memory::desc({K}, kFloat, Tag::x),
        plain_desc(n_, s_.shapes[i]));
    const dnnl::inner_product_forward::primitive_desc pd(desc, relu_attribute(s_.folded.at(i).relu),
                                                         s_.engine);
    make_plain(s_.shapes[i - 1]);
    const memory from = current_;
    current_ = next(pd.dst_desc());
    execute(dnnl::inner_product_forward(pd),
            {{DNNL_ARG_SRC, from},
             {DNNL_ARG_WEIGHTS, s_.packed_weights(i, plain, pd.weights_desc())},
             {DNNL_ARG_BIAS, s_.bias(i)},
             {DNNL_ARG_DST, current_}});
  }

  void add_pooling(size_t i) {
    // The odd last row and column are left out by reading past neither edge: padding 0, floor.
    const dnnl::pooling_forward::desc desc(
        dnnl::prop_kind::forward_inference, dnnl::algorithm::pooling_max, current_.get_desc(),
        any_desc(n_, s_.shapes[i]), {2, 2}, {2, 2}, {0, 0}, {0, 0});
    const dnnl::pooling_forward::primitive_desc pd(desc, s_.engine);
    const memory from = current_;
    current_ = next(pd.dst_desc());
    execute(dnnl::pooling_forward(pd), {{DNNL_ARG_SRC, from}, {DNNL_ARG_DST, current_}});
  }

  void add_global_pooling(size_t i) {
    make_plain(s_.shapes[i - 1]);
    const memory from = current_;
    current_ = next(plain_desc(n_, s_.shapes[i]));
    plan_.steps.emplace_back([n = n_, kind = s_.network.layers[i].kind, in = s_.shapes[i - 1],
                              out = s_.shapes[i], from, to = current_] {
      const auto* source = static_cast<const float*>(from.get_data_handle());
      auto* target = static_cast<float*>(to.get_data_handle());
#pragma omp parallel for
      for (int image = 0; image < n; ++image)
        global_pool(kind, source + image * in.elements(), in.channels, in.height * in.width,
                    target + image * out.elements());
    });
  }

  void add_affine(size_t i) {
    const Shape& shape = s_.shapes[i];
    make_plain(shape);
    leave_input();
    plan_.steps.emplace_back([n = n_, shape, relu = s_.network.layers[i].relu,
                              affine = &s_.affines.at(i), data = current_] {
      auto* values = static_cast<float*>(data.get_data_handle());
      for (int image = 0; image < n; ++image)
        apply_affine(*affine, relu, values + image * shape.elements(), shape.height * shape.width);
    });
  }

  State& s_;
  Plan& plan_;
  int n_;
  int which_ = 0;
  memory current_;
};

Engine::State::Plan& Engine::State::plan(int count) {
  const auto [at, fresh] = plans.try_emplace(count);
  if (fresh) Builder(*this, at->second, count).build();
  return at->second;
}

void Engine::State::run(const float* in, int count, float* out) {
  const std::lock_guard lock(mutex);
  omp_set_num_threads(options.threads);
  for (int done = 0; done < count;) {
    const int step = std::min(options.max_batch, count - done);
    Plan& p = plan(step);
    // oneDNN takes plain pointers; the source is not written to.
    p.input.set_data_handle(const_cast<float*>(in + done * in_shape.elements()));
    for (const auto& action : p.steps) action();
    stream.wait();
    std::memcpy(out + done * out_shape.elements(), p.output.get_data_handle(),
                static_cast<size_t>(step) * out_shape.elements() * sizeof(float));
    done += step;
  }
}

Engine::Engine(const Network& network, size_t begin, size_t end, const TensorMap& tensors,
               const EngineOptions& options)
    : state_(std::make_unique<State>(network, begin, end, tensors, options)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

int64_t Engine::input_elements() const { return state_->in_shape.elements(); }
int64_t Engine::output_elements() const { return state_->out_shape.elements(); }
int Engine::max_batch() const { return state_->options.max_batch; }
void Engine::run(const float* in, int count, float* out) { state_->run(in, count, out); }

}  // namespace graft
