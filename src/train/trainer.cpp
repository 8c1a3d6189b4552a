#include "train/trainer.h"

#include <torch/torch.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/signals.h"
#include "graft/error.h"
#include "model/model_file.h"
#include "train/batches.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/state.h"
#include "train/suffix.h"
#include "weights/load.h"

namespace graft {
namespace {

torch::Device choose_device(const std::string& name) {
  if (name == "cpu" || (name == "auto" && !torch::cuda::is_available())) return torch::kCPU;
  if (!torch::cuda::is_available())
    fail(ErrorKind::input,
         "--device cuda: this LibTorch or this machine has no CUDA; use --device "
         "cpu");
  return torch::kCUDA;
}

/// Sums over batches.
struct Tally {
  double loss = 0;
  int64_t correct = 0;
  int64_t seen = 0;

  void add(const torch::Tensor& mean_loss, const torch::Tensor& logits,
           const torch::Tensor& labels) {
    const int64_t n = labels.size(0);
    loss += mean_loss.item<double>() * static_cast<double>(n);
    correct += logits.argmax(1).eq(labels).sum().item<int64_t>();
    seen += n;
  }
  [[nodiscard]] double mean_loss() const { return seen > 0 ? loss / static_cast<double>(seen) : 0; }
  [[nodiscard]] double accuracy() const {
    return seen > 0 ? static_cast<double>(correct) / static_cast<double>(seen) : 0;
  }
};

class Trainer {
 public:
  Trainer(const TrainJob& job, const TrainConfig& config)
      : job_(job), config_(config), device_(choose_device(config.device)) {
    set_training_threads(config.threads);
    keep_freed_memory();
  }

  TrainResult run() {
    load();
    const Network& net = job_.metadata.network;
    TensorMap initial = job_.backbone;
    size_t head = 0;
    while (!net.layers[head].in_head) ++head;
    initial.merge(random_tensors(net, head, net.layers.size(), config_.seed));
    const TrainingState state(job_.run);
    const std::optional<TrainingState::Loaded> loaded =
        config_.resume ? state.load() : std::nullopt;
    if (loaded) {
      check_same_run(loaded->record);
      for (const auto& [name, tensor] : loaded->tensors)
        if (initial.contains(name)) initial.insert_or_assign(name, tensor);
    }
    suffix_.emplace(net, job_.prefix_end, initial, device_);
    optimizer_.emplace(OptimizerOptions{config_.optimizer, config_.weight_decay, config_.momentum},
                       suffix_->parameters());
    weigh_classes();
    make_folder(job_.run / "checkpoints");
    if (loaded) {
      TrainingState::restore(*loaded, *optimizer_);
      restore(loaded->record);
    }

    while (static_cast<int>(result_.history.size()) < config_.epochs && !out_of_patience()) {
      const int epoch = static_cast<int>(result_.history.size()) + 1;
      EpochRecord record = run_epoch(epoch);
      // Higher validation accuracy wins; of equals, the lower loss.
      const bool better = record.val_accuracy > best_accuracy_ ||
                          (record.val_accuracy == best_accuracy_ && record.val_loss < best_loss_);
      result_.history.push_back(record);
      write_history();
      save("last", record);
      if (better) {
        best_accuracy_ = record.val_accuracy;
        best_loss_ = record.val_loss;
        result_.best_epoch = epoch;
        link_checkpoint("checkpoints/best.safetensors");
      }
      // Last: whatever a kill leaves behind before it is made again, the same, after a resume.
      state.save(*suffix_, *optimizer_, state_record());
    }
    result_.stopped_early = static_cast<int>(result_.history.size()) < config_.epochs;
    source_ = job_.run / "checkpoints" / "best.safetensors";
    link_checkpoint("model.safetensors");
    return std::move(result_);
  }

 private:
  /// Decodes all pictures and computes what stays the same in all epochs.
  void load() {
    const Network& net = job_.metadata.network;
    const bool has_prefix = job_.prefix_end > 1;
    const PrefixJob features{net, job_.prefix_end, job_.backbone, job_.cache, job_.cache_dtype};
    Batches::Source source{net, job_.metadata.preprocessing};
    source.threads = config_.threads;
    source.verbosity = config_.verbosity;
    if (has_prefix && job_.keep_features) {
      source.features = &features;
    } else if (has_prefix) {
      EngineOptions options;
      options.threads = config_.threads;
      options.single_plan = false;
      prefix_.emplace(net, 0, job_.prefix_end, job_.backbone, options);
      source.prefix = &*prefix_;
    }
    const std::string what =
        source.features != nullptr ? "features of the frozen prefix" : "reading pictures";
    train_.emplace(load(source, Split::train, what + ", train"));
    val_.emplace(load(source, Split::validation, what + ", val"));
  }

  Batches load(const Batches::Source& source, Split split, const std::string& label) {
    const std::vector<size_t> indices = job_.dataset.of(split);
    std::vector<Sample> samples;
    samples.reserve(indices.size());
    for (const size_t i : indices) samples.push_back(job_.dataset.samples[i]);
    Batches batches(source, samples, label, [&](size_t i, const std::string& message) {
      result_.excluded.push_back(indices[i]);
      result_.errors.push_back(message);
    });
    if (batches.size() == 0)
      fail(ErrorKind::input, "none of the {} {} pictures could be read{}", samples.size(),
           to_string(split), result_.errors.empty() ? "" : "; the first: " + result_.errors[0]);
    return batches;
  }

  [[nodiscard]] bool out_of_patience() const {
    return config_.patience > 0 && !result_.history.empty() &&
           static_cast<int>(result_.history.size()) - result_.best_epoch >= config_.patience;
  }

  /// The pictures, their labels and splits.
  [[nodiscard]] std::string data_hash() const {
    std::string text;
    for (const Sample& sample : job_.dataset.samples)
      text +=
          fmt::format("{}\n{}\n{}\n", sample.path.lexically_relative(job_.dataset.root).string(),
                      sample.label, static_cast<int>(sample.split));
    return content_hash(std::as_bytes(std::span(text)));
  }

  [[nodiscard]] nlohmann::json state_record() const {
    nlohmann::json history = nlohmann::json::array();
    for (const EpochRecord& r : result_.history)
      history.push_back(
          {r.loss, r.accuracy, r.val_loss, r.val_accuracy, r.learning_rate, r.seconds});
    return {{"data", data_hash()},
            {"optimizer", config_.optimizer},
            {"batch_size", config_.batch_size},
            {"seed", config_.seed},
            {"steps", optimizer_->steps()},
            {"best_epoch", result_.best_epoch},
            {"best_accuracy", best_accuracy_},
            {"best_loss", best_loss_},
            {"history", history}};
  }

  void check_same_run(const nlohmann::json& record) const {
    if (record.value("optimizer", "") != config_.optimizer ||
        record.value("batch_size", 0) != config_.batch_size ||
        record.value("seed", uint64_t{0}) != config_.seed)
      fail(ErrorKind::input,
           "{}: --optimizer, --batch-size and --seed of a run that is resumed cannot change",
           printable(job_.run));
    if (record.value("data", "") != data_hash())
      fail(ErrorKind::input,
           "{}: the pictures or their split are not those that this run began with; train without "
           "--resume",
           printable(job_.run));
  }

  void restore(const nlohmann::json& record) {
    optimizer_->set_steps(record.at("steps").get<int64_t>());
    result_.best_epoch = record.at("best_epoch").get<int>();
    best_accuracy_ = record.at("best_accuracy").get<double>();
    best_loss_ = record.at("best_loss").get<double>();
    for (const nlohmann::json& row : record.at("history")) {
      EpochRecord r;
      r.epoch = static_cast<int>(result_.history.size()) + 1;
      r.loss = row.at(0);
      r.accuracy = row.at(1);
      r.val_loss = row.at(2);
      r.val_accuracy = row.at(3);
      r.learning_rate = row.at(4);
      r.seconds = row.at(5);
      result_.history.push_back(r);
    }
    if (config_.verbosity != Verbosity::quiet)
      fmt::print(stderr, "going on after epoch {}\n", result_.history.size());
  }

  EpochRecord run_epoch(int epoch) {
    // Dropout of an epoch depends on nothing that came before it.
    torch::manual_seed(config_.seed * 1'000'003 + static_cast<uint64_t>(epoch));
    const auto start = std::chrono::steady_clock::now();
    std::vector<int64_t> order(train_->size());
    std::iota(order.begin(), order.end(), 0);
    Random(config_.seed, static_cast<uint64_t>(epoch)).shuffle(order);
    Progress progress(fmt::format("epoch {}/{}", epoch, config_.epochs), order.size(), "images",
                      config_.verbosity);
    Tally tally;
    const auto step = static_cast<size_t>(config_.batch_size);
    for (size_t at = 0; at < order.size(); at += step) {
      const size_t end = std::min(at + step, order.size());
      // Batch statistics of one sample do not exist.
      if (end - at == 1 && order.size() > 1 && suffix_->has_batchnorm()) break;
      train_step({order.begin() + static_cast<long>(at), order.begin() + static_cast<long>(end)},
                 epoch, tally);
      progress.update(end,
                      fmt::format("loss {:.4f}  acc {:.4f}", tally.mean_loss(), tally.accuracy()));
      if (interrupting_signal() != 0) stop(epoch, tally);
    }
    const Tally val = validate(epoch);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    progress.finish(fmt::format("loss {:.4f}  acc {:.4f}  val_loss {:.4f}  val_acc {:.4f}",
                                tally.mean_loss(), tally.accuracy(), val.mean_loss(),
                                val.accuracy()));
    return {epoch, tally.mean_loss(), tally.accuracy(), val.mean_loss(), val.accuracy(),
            rate_, taken.count()};
  }

  void train_step(const std::vector<int64_t>& rows, int epoch, Tally& tally) {
    const torch::Tensor labels = train_->labels(rows).to(device_);
    optimizer_->zero_grad();
    const torch::Tensor logits =
        suffix_->forward(train_->inputs(rows).to(device_), /*training=*/true);
    const torch::Tensor loss =
        torch::nn::functional::cross_entropy(logits, labels,
                                             torch::nn::functional::CrossEntropyFuncOptions()
                                                 .weight(class_weights_)
                                                 .label_smoothing(config_.label_smoothing));
    tally.add(loss, logits, labels);
    if (!std::isfinite(tally.loss))
      fail(ErrorKind::input, "the loss became {} in epoch {}; try a smaller --lr than {:g}",
           tally.loss, epoch, config_.learning_rate);
    loss.backward();
    if (config_.clip_gradients > 0) optimizer_->clip_gradients(config_.clip_gradients);
    rate_ = config_.learning_rate *
            schedule_factor(config_.schedule, config_.warmup_epochs * steps_in_epoch(),
                            optimizer_->steps(), config_.epochs * steps_in_epoch());
    optimizer_->step(rate_);
  }

  [[nodiscard]] int64_t steps_in_epoch() const {
    const auto count = static_cast<int64_t>(train_->size());
    return (count + config_.batch_size - 1) / config_.batch_size;
  }

  /// "balanced": n / (classes · n of the class), so that classes weigh alike and the mean is 1.
  void weigh_classes() {
    if (config_.class_weights != "balanced") return;
    std::vector<int64_t> rows(train_->size());
    std::iota(rows.begin(), rows.end(), 0);
    const auto classes = static_cast<int64_t>(job_.metadata.classes.size());
    const torch::Tensor counts =
        torch::bincount(train_->labels(rows), {}, classes).to(torch::kFloat);
    class_weights_ =
        (static_cast<double>(train_->size()) / (static_cast<double>(classes) * counts.clamp_min(1)))
            .to(device_);
  }

  Tally validate(int epoch) {
    const torch::NoGradGuard no_gradients;
    Tally tally;
    const auto count = static_cast<int64_t>(val_->size());
    for (int64_t at = 0; at < count; at += config_.batch_size) {
      std::vector<int64_t> rows(
          static_cast<size_t>(std::min<int64_t>(config_.batch_size, count - at)));
      std::iota(rows.begin(), rows.end(), at);
      const torch::Tensor labels = val_->labels(rows).to(device_);
      const torch::Tensor logits =
          suffix_->forward(val_->inputs(rows).to(device_), /*training=*/false);
      tally.add(torch::nn::functional::cross_entropy(logits, labels), logits, labels);
      if (interrupting_signal() != 0) stop(epoch, tally);
    }
    return tally;
  }

  /// After a signal: saves the state of the unfinished epoch and leaves.
  [[noreturn]] void stop(int epoch, const Tally& tally) {
    EpochRecord record;
    record.epoch = epoch;
    record.loss = tally.mean_loss();
    record.accuracy = tally.accuracy();
    record.learning_rate = rate_;
    save("last", record);
    std::string best = "; no epoch was complete";
    if (result_.best_epoch > 0)
      best = fmt::format("; best so far: epoch {} in checkpoints/best.safetensors",
                         result_.best_epoch);
    fail(ErrorKind::interrupted,
         "interrupted in epoch {}; state saved in {}{}; --resume {} goes on", epoch,
         printable(source_), best, printable(job_.run));
  }

  void save(const std::string& name, const EpochRecord& record) {
    ModelFile model{job_.metadata, suffix_->snapshot()};
    for (const TensorSpec& spec : tensor_specs(job_.metadata.network, 0, job_.prefix_end))
      model.tensors.insert_or_assign(spec.name, job_.backbone.at(spec.name));
    model.metadata.training = {{"epoch", record.epoch},
                               {"loss", record.loss},
                               {"accuracy", record.accuracy},
                               {"val_loss", record.val_loss},
                               {"val_accuracy", record.val_accuracy},
                               {"fine_tune", config_.fine_tune},
                               {"optimizer", config_.optimizer},
                               {"learning_rate", config_.learning_rate},
                               {"schedule", config_.schedule},
                               {"label_smoothing", config_.label_smoothing},
                               {"batch_size", config_.batch_size},
                               {"seed", config_.seed},
                               {"training_images", train_->size()},
                               {"validation_images", val_->size()}};
    source_ = job_.run / "checkpoints" / (name + ".safetensors");
    write_model(source_, model);
  }

  /// Gives the last checkpoint written a second name: a hard link where the file system has them
  /// (checkpoints are only ever replaced, never changed), else a copy.
  void link_checkpoint(const std::string& name) {
    const fs::path target = job_.run / name;
    fs::path temporary = target;
    temporary += ".tmp";
    std::error_code error;
    fs::remove(temporary, error);
    fs::create_hard_link(source_, temporary, error);
    if (error) fs::copy_file(source_, temporary, fs::copy_options::overwrite_existing, error);
    if (!error) fs::rename(temporary, target, error);
    if (error) {
      std::error_code ignored;
      fs::remove(temporary, ignored);
      fail(ErrorKind::io, "{}: cannot be written: {}", printable(target), error.message());
    }
  }

  void write_history() const {
    std::string text = "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n";
    for (const EpochRecord& r : result_.history)
      text += fmt::format("{},{:.6f},{:.6f},{:.6f},{:.6f},{:g},{:.3f}\n", r.epoch, r.loss,
                          r.accuracy, r.val_loss, r.val_accuracy, r.learning_rate, r.seconds);
    write_file_atomic(job_.run / "history.csv", text);
  }

  const TrainJob& job_;
  const TrainConfig& config_;
  torch::Device device_;
  TrainResult result_;
  std::optional<Engine> prefix_;
  std::optional<Batches> train_;
  std::optional<Batches> val_;
  std::optional<Suffix> suffix_;
  std::optional<Optimizer> optimizer_;
  torch::Tensor class_weights_;  // undefined: all alike
  double best_accuracy_ = -1;
  double best_loss_ = 0;
  double rate_ = 0;  // of the last step
  fs::path source_;  // the checkpoint written last
};

}  // namespace

TrainResult train(const TrainJob& job, const TrainConfig& config) {
  return Trainer(job, config).run();
}

}  // namespace graft
