#include "weights/keras_walk.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "weights/keras_pixels.h"

namespace graft {
namespace {

using nlohmann::json;

constexpr int64_t kMostSide = 1 << 20;

const json* member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto at = object.find(key);
  return at == object.end() || at->is_null() ? nullptr : &*at;
}

std::string text(const json& config, const char* key, const char* otherwise = "") {
  const json* value = member(config, key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : otherwise;
}

bool flag(const json& config, const char* key, bool otherwise) {
  const json* value = member(config, key);
  return value != nullptr && value->is_boolean() ? value->get<bool>() : otherwise;
}

/// What a layer hands on: pixels, or the features of the network so far.
struct Value {
  std::optional<KerasPixels> pixels;
  bool flat = false;
};

/// A model that is being followed: the outermost, or one that is a layer of another.
struct Frame {
  const KerasModel& model;
  KerasPath around;              // models that are layers, from the outermost
  std::optional<Value> input{};  // of one within another
  std::map<std::string, Value> done{};
  std::set<std::string> open{};
};

class Walker {
 public:
  Walker(std::string file, const KerasValues& values) : file_(std::move(file)), values_(values) {}

  KerasWalk run(const KerasModel& model) {
    Frame frame{model, {}};
    note_code(model);
    const Value end = follow(frame, model.output);
    if (end.pixels) refuse_file("none of its layers is a convolution");
    finish();
    return std::move(out_);
  }

  KerasFront front(const KerasModel& model) {
    Frame frame{model, {}};
    try {
      follow(frame, model.output);
    } catch (const Error& error) {  // perhaps of a layer that need not concern whoever asks
      if (in_front_) {
        const std::string why = error.what();
        return {{}, {}, why.starts_with(file_ + ": ") ? why.substr(file_.size() + 2) : why};
      }
      if (out_.steps.empty()) return {};
    }
    return {out_.preprocessing, out_.resampling,
            code_ == nullptr ? ""
                             : fmt::format("layer {} (Lambda) is Python code, which is not read",
                                           clipped(printable(code_->name)))};
  }

 private:
  void note_code(const KerasModel& model) {
    if (!model.code.empty())
      out_.notes.push_back(
          fmt::format("model {} is of the class {}, whose Python code is not read: its layers are "
                      "taken as they are connected",
                      clipped(printable(model.name)), clipped(printable(model.code))));
    for (const KerasNode& layer : model.layers)
      if (layer.model != nullptr) note_code(*layer.model);
  }
  [[noreturn]] void refuse_file(const std::string& why) const {
    fail(ErrorKind::input, "{}: {}", file_, why);
  }
  [[noreturn]] void refuse(const KerasNode& layer, const std::string& why) const {
    fail(ErrorKind::input, "{}: layer {} ({}) {}", file_, clipped(printable(layer.name)),
         clipped(printable(layer.kind)), why);
  }

  Value follow(Frame& frame, const std::string& name) {
    if (const auto at = frame.done.find(name); at != frame.done.end()) {
      if (!at->second.pixels) {
        const KerasNode* layer = frame.model.find(name);
        refuse(*layer, "is read by several layers; Graft's networks are straight lists of them");
      }
      return at->second;
    }
    const KerasNode* layer = frame.model.find(name);
    if (layer == nullptr)
      refuse_file("a layer reads '" + clipped(printable(name)) + "', which is none");
    if (!frame.open.insert(name).second) refuse(*layer, "reads itself");
    Value value = result_of(frame, *layer);
    frame.done.emplace(name, value);
    return value;
  }

  Value result_of(Frame& frame, const KerasNode& layer) {
    if (layer.name == frame.model.input) return frame.input ? *frame.input : image(layer);
    if (layer.kind == "InputLayer") refuse(layer, "is a second input");
    if (layer.calls != 1 || layer.inputs.empty())
      refuse(layer, "is not called exactly once in its model");
    std::vector<Value> inputs;
    for (const std::string& name : layer.inputs) inputs.push_back(follow(frame, name));
    if (layer.model != nullptr) {
      if (inputs.size() != 1) refuse(layer, "has more than one input");
      KerasPath around = frame.around;
      around.push_back(&layer);
      Frame inner{*layer.model, std::move(around), inputs.front()};
      return follow(inner, layer.model->output);
    }
    KerasPath path = frame.around;
    path.push_back(&layer);
    const bool all_pixels = std::all_of(inputs.begin(), inputs.end(),
                                        [](const Value& v) { return v.pixels.has_value(); });
    in_front_ = all_pixels;
    if (all_pixels)
      if (std::optional<Value> value = before_network(layer, path, inputs)) {
        in_front_ = false;
        return *value;
      }
    if (inputs.size() != 1)
      refuse(layer, "joins several branches; Graft's networks are straight lists of layers");
    Value value = in_network(layer, path, inputs.front());
    in_front_ = false;
    return value;
  }

  Value image(const KerasNode& layer) {
    const json* shape = member(layer.config, "batch_shape");
    if (shape == nullptr) shape = member(layer.config, "batch_input_shape");
    if (shape == nullptr || !shape->is_array()) return {KerasPixels()};
    if (shape->size() != 4 || ((*shape)[3].is_number() && (*shape)[3] != 3))
      refuse(layer, fmt::format("has the shape {}; Graft's networks read images of three channels, "
                                "which stand last",
                                clipped(shape->dump())));
    set_size((*shape)[1], (*shape)[2]);
    return {KerasPixels()};
  }

  void set_size(const json& height, const json& width) {
    const bool known = height.is_number() && width.is_number() && keras_integer(height) > 0 &&
                       keras_integer(width) > 0 && keras_integer(height) <= kMostSide &&
                       keras_integer(width) <= kMostSide;
    out_.height = known ? static_cast<int>(keras_integer(height)) : 0;
    out_.width = known ? static_cast<int>(keras_integer(width)) : 0;
  }

  std::optional<Value> before_network(const KerasNode& layer, const KerasPath& path,
                                      const std::vector<Value>& inputs) {
    if (is_augmentation(layer)) {
      out_.notes.push_back(
          fmt::format("left out layer {} ({}), which does nothing outside training",
                      clipped(printable(layer.name)), clipped(printable(layer.kind))));
      return inputs.at(0);
    }
    if (layer.kind == "Resizing") {
      if (flag(layer.config, "crop_to_aspect_ratio", false) ||
          flag(layer.config, "pad_to_aspect_ratio", false))
        refuse(layer, "crops or pads; Graft stretches images to the input size");
      if (out_.resampling) refuse(layer, "resizes once more; Graft brings images to one size");
      set_size(layer.config.value("height", json()), layer.config.value("width", json()));
      const std::string how = layer.config.value("interpolation", "bilinear");
      if (how != "bilinear" && how != "nearest")
        refuse(layer,
               "resizes by " + clipped(printable(how)) + "; Graft knows bilinear and nearest");
      // With antialias it is Pillow's filter, but for what Pillow rounds between rows and columns.
      const bool smooth = flag(layer.config, "antialias", false);
      out_.resampling = how == "nearest" ? Resampling::nearest
                        : smooth         ? Resampling::bilinear
                                         : Resampling::bilinear_noaa;
      const std::string name = clipped(printable(layer.name));
      out_.notes.push_back(
          fmt::format("left out layer {} (Resizing): Graft brings images to {}x{} itself", name,
                      out_.height, out_.width));
      out_.resampling_note = fmt::format(
          "images are resized as layer {} does, {}", name,
          how == "nearest" ? "to the nearest pixel (of two that are equally near TensorFlow's "
                             "rounding may take the other)"
          : smooth         ? "antialiased (bilinear), within one of 255 levels"
                           : "bilinear without antialiasing, with levels rounded to whole ones");
      return inputs.at(0);
    }
    std::vector<KerasPixels> pixels;
    for (const Value& value : inputs) pixels.push_back(*value.pixels);
    std::vector<std::vector<float>> own;
    if (layer.kind == "Normalization" || is_pixel_convolution(layer)) own = values_(path);
    std::optional<KerasPixels> result = keras_pixels(layer, pixels, own);
    if (!result) return std::nullopt;
    if (result->unknown && !pixels.front().unknown) {
      code_ = &layer;
      out_.notes.push_back(
          fmt::format("layer {} (Lambda) is Python code, which is not read: it is taken for how "
                      "pixels are prepared",
                      clipped(printable(layer.name))));
    }
    return Value{std::move(result)};
  }

  /// A layer of the network itself; the first one ends what is done with pixels.
  Value in_network(const KerasNode& layer, const KerasPath& path, const Value& input) {
    if (input.pixels && out_.steps.empty() && layer.kind != "Conv2D" &&
        layer.kind != "ZeroPadding2D")
      refuse(layer, "stands before the first convolution, and Graft has no such step");
    if (input.pixels && out_.steps.empty()) out_.preprocessing = input.pixels->preprocessing(file_);
    if (text(layer.config, "data_format", "channels_last") == "channels_first")
      refuse(layer,
             "has channels first; open the model in Keras with data_format channels_last and save "
             "it again");
    if (padded_ && layer.kind != "Conv2D")
      refuse(*padded_, "pads for another layer than a convolution");
    if (ended_ != nullptr && layer.kind != "Activation" && layer.kind != "Softmax")
      refuse(layer, fmt::format("stands behind {}, where a classifier ends",
                                clipped(printable(ended_->name))));
    Value value{std::nullopt, input.flat};
    const std::string& kind = layer.kind;
    if (kind == "Conv2D") {
      convolution(layer, path);
    } else if (kind == "ZeroPadding2D") {
      pad(layer);
    } else if (kind == "MaxPooling2D") {
      pool(layer, path);
    } else if (kind == "BatchNormalization") {
      batchnorm(layer, path, input.flat);
    } else if (kind == "Dense") {
      dense(layer, path, input.flat);
    } else if (kind == "Dropout") {
      const json* rate = member(layer.config, "rate");
      if (rate == nullptr) rate = member(layer.config, "p");
      if (rate == nullptr || !rate->is_number() || !(*rate >= 0 && *rate < 1))
        refuse(layer, "has no rate from 0 up to, not including, 1");
      add(layer, path, {.kind = LayerKind::dropout, .rate = rate->get<double>()});
    } else if (kind == "GlobalAveragePooling2D" || kind == "GlobalMaxPooling2D") {
      add(layer, path, {.kind = kind == "GlobalMaxPooling2D" ? LayerKind::gmp : LayerKind::gap});
      value.flat = true;
    } else if (kind == "Flatten") {
      // Of what is flat already it makes nothing else.
      if (!input.flat) add(layer, path, {.kind = LayerKind::flatten});
      value.flat = true;
    } else if (kind == "Activation" || kind == "ReLU" || kind == "Softmax") {
      activate(layer, kind == "ReLU"      ? keras_relu(layer.config)
                      : kind == "Softmax" ? "softmax"
                                          : keras_activation(layer.config));
    } else if (is_augmentation(layer) || kind.starts_with("SpatialDropout") ||
               kind == "AlphaDropout" || kind == "Identity" ||
               (kind == "Cast" && casts_to_floats(layer))) {
      out_.notes.push_back(
          fmt::format("left out layer {} ({}), which does nothing outside training",
                      clipped(printable(layer.name)), clipped(printable(kind))));
    } else {
      refuse(layer, "is of a kind that Graft does not have");
    }
    return value;
  }

  ForeignLayer& add(const KerasNode& layer, const KerasPath& path, ForeignLayer made) {
    made.name = printable(layer.name);
    out_.steps.push_back({std::move(made), path});
    return out_.steps.back().layer;
  }

  int outputs(const KerasNode& layer, const char* key) {
    const json* value = member(layer.config, key);
    constexpr int64_t kMostOutputs = 1 << 20;
    const int64_t count = value == nullptr ? 0 : keras_integer(*value);
    if (count < 1 || count > kMostOutputs)
      refuse(layer, fmt::format("states no {} from 1 to {}", key, kMostOutputs));
    return static_cast<int>(count);
  }

  void convolution(const KerasNode& layer, const KerasPath& path) {
    const json& c = layer.config;
    const std::string padding = text(c, "padding", "valid");
    const int64_t kernel = keras_side(c, "kernel_size", 0);
    const int64_t stride = keras_side(c, "strides", 1);
    const bool same = padding == "same" || padded_ != nullptr;
    if (kernel != 3 || stride != 1 || !same || (padded_ != nullptr && padding == "same") ||
        keras_side(c, "dilation_rate", 1) != 1 || keras_side(c, "groups", 1) != 1)
      refuse(layer, fmt::format("has a kernel of {}, strides of {}, padding '{}'{}; Graft's "
                                "convolutions are 3x3 with stride 1 and padding 'same'",
                                clipped(c.value("kernel_size", json()).dump()),
                                clipped(c.value("strides", json(1)).dump()), clipped(padding),
                                keras_side(c, "dilation_rate", 1) != 1 ? ", dilation"
                                : keras_side(c, "groups", 1) != 1      ? ", groups"
                                                                       : ""));
    padded_ = nullptr;
    add(layer, path, {.kind = LayerKind::conv, .outputs = outputs(layer, "filters")});
    activate(layer, keras_activation(c));
  }

  /// One row and column on each side, of a convolution with padding 'valid'.
  void pad(const KerasNode& layer) {
    const json* padding = member(layer.config, "padding");
    const std::string text = padding == nullptr ? "1" : padding->dump();
    if (text != "1" && text != "[1,1]" && text != "[[1,1],[1,1]]")
      refuse(layer, "pads other than by one row and column on each side");
    padded_ = &layer;
  }

  void pool(const KerasNode& layer, const KerasPath& path) {
    const json& c = layer.config;
    const int64_t size = keras_side(c, "pool_size", 2);
    const std::string padding = text(c, "padding", "valid");
    if (size != 2 || keras_side(c, "strides", size) != 2)
      refuse(layer, "does not pool windows of 2x2 with stride 2, which is all that Graft has");
    if (padding != "valid") {
      // The same where no row or column is left over.
      Shape shape = map();
      if (shape.height <= 0 || shape.height % 2 != 0 || shape.width % 2 != 0)
        refuse(layer,
               "has padding 'same' on maps of odd or unknown size, which Graft does not have");
    }
    add(layer, path, {.kind = LayerKind::maxpool});
  }

  /// The size of the maps so far; 0 where it is not known.
  [[nodiscard]] Shape map() const {
    int64_t height = out_.height;
    int64_t width = out_.width;
    for (const KerasStep& step : out_.steps)
      if (step.layer.kind == LayerKind::maxpool) {
        height /= 2;
        width /= 2;
      }
    return {0, height, width, false};
  }

  void batchnorm(const KerasNode& layer, const KerasPath& path, bool flat) {
    const json* epsilon = member(layer.config, "epsilon");
    const double value = epsilon != nullptr && epsilon->is_number() ? epsilon->get<double>() : 1e-3;
    if (!(value > 0 && value < 1)) refuse(layer, "has an epsilon that is not between 0 and 1");
    const json* axis = member(layer.config, "axis");
    const json* index =
        axis != nullptr && axis->is_array() && axis->size() == 1 ? &(*axis)[0] : axis;
    if (index != nullptr && *index != -1 && *index != (flat ? 1 : 3))
      refuse(layer, "does not normalise over channels");
    add(layer, path, {.kind = LayerKind::batchnorm, .epsilon = value});
  }

  void dense(const KerasNode& layer, const KerasPath& path, bool flat) {
    if (!flat) refuse(layer, "stands on maps; Graft's dense layers stand on flat vectors");
    const char* units = member(layer.config, "units") == nullptr ? "output_dim" : "units";
    add(layer, path, {.kind = LayerKind::dense, .outputs = outputs(layer, units)});
    activate(layer, keras_activation(layer.config));
  }

  /// Whether numbers below 0 cannot come out of the last layer.
  [[nodiscard]] bool is_positive() const {
    for (auto step = out_.steps.rbegin(); step != out_.steps.rend(); ++step) {
      const LayerKind kind = step->layer.kind;
      if (kind == LayerKind::conv || kind == LayerKind::batchnorm || kind == LayerKind::dense)
        return step->layer.relu;
    }
    return false;
  }

  void activate(const KerasNode& layer, const std::string& name) {
    if (name == "linear") return;
    if (ended_ != nullptr)
      refuse(layer, "stands behind the activation with which a classifier ends");
    ForeignLayer& last = out_.steps.back().layer;
    if (name == "relu") {
      const bool can = last.kind == LayerKind::conv || last.kind == LayerKind::batchnorm ||
                       last.kind == LayerKind::dense;
      if (can)
        last.relu = true;
      else if (!is_positive())
        refuse(layer, fmt::format("is a ReLU behind {}, where Graft cannot have one", last.name));
    } else if ((name == "softmax" || name == "sigmoid") && last.kind == LayerKind::dense &&
               !last.relu) {
      ended_ = &layer;
      end_ = name;
    } else {
      refuse(layer, fmt::format("has the activation {}, which Graft does not have{}",
                                clipped(printable(name)),
                                name == "softmax" || name == "sigmoid" ? " at this place" : ""));
    }
  }

  /// What the last layer means.
  void finish() {
    if (out_.steps.empty() || out_.steps.back().layer.kind != LayerKind::dense ||
        out_.steps.back().layer.relu)
      refuse_file(
          fmt::format("its model ends in layer {}; a classifier ends in a Dense layer with "
                      "softmax, one with sigmoid, or none",
                      out_.steps.empty() ? "(none)" : out_.steps.back().layer.name));
    const ForeignLayer& last = out_.steps.back().layer;
    if (last.outputs == 1 && end_ == "softmax")
      refuse_file(fmt::format(
          "its last layer {} has one output, of which its softmax makes 1: no classifier",
          last.name));
    if (last.outputs > 1 && end_ == "sigmoid")
      refuse_file(fmt::format(
          "its last layer {} has {} outputs with a sigmoid each: labels that do not exclude each "
          "other, which Graft's classifiers do not have",
          last.name, last.outputs));
    if (end_ == "sigmoid") out_.output = ForeignOutput::sigmoid;
    if (end_.empty())
      out_.notes.push_back(
          fmt::format("layer {} has no softmax; its outputs are taken for logits", last.name));
  }

  std::string file_;
  const KerasValues& values_;
  KerasWalk out_;
  bool in_front_ = false;            // of the first convolution
  const KerasNode* code_ = nullptr;  // a Lambda there
  const KerasNode* padded_ = nullptr;
  const KerasNode* ended_ = nullptr;
  std::string end_;
};

}  // namespace

KerasWalk walk_keras_model(const KerasModel& model, const std::string& file,
                           const KerasValues& values) {
  return Walker(file, values).run(model);
}

KerasFront front_of_keras_model(const KerasModel& model, const std::string& file,
                                const KerasValues& values) {
  return Walker(file, values).front(model);
}

}  // namespace graft
