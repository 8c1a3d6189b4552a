#include "serve/inference_queue.h"

#include <algorithm>

namespace graft::serving {

using Clock = std::chrono::steady_clock;

InferenceQueue::InferenceQueue(std::chrono::microseconds most_wait)
    : most_wait_(most_wait), thread_([this] { work(); }) {}

InferenceQueue::~InferenceQueue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void InferenceQueue::announce(size_t images) {
  const std::lock_guard lock(mutex_);
  announced_ += images;
}

void InferenceQueue::withdraw(size_t images) {
  {
    const std::lock_guard lock(mutex_);
    announced_ -= std::min(images, announced_);
  }
  changed_.notify_all();
}

void InferenceQueue::add(Inference inference) {
  {
    const std::lock_guard lock(mutex_);
    announced_ -= std::min<size_t>(1, announced_);
    waiting_.push_back({std::move(inference), Clock::now()});
  }
  changed_.notify_all();
}

void InferenceQueue::add_task(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

QueueCounts InferenceQueue::counts() const {
  const std::lock_guard lock(mutex_);
  QueueCounts out = counts_;
  out.waiting = waiting_.size();
  return out;
}

void InferenceQueue::work() {
  std::unique_lock lock(mutex_);
  bool task_is_next = false;  // a task after each batch, so that neither waits for all of the other
  while (!stopping_) {
    if (waiting_.empty() && tasks_.empty()) {
      changed_.wait(lock);
      continue;
    }
    if (!tasks_.empty() && (task_is_next || waiting_.empty())) {
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
      task_is_next = false;
      continue;
    }
    std::vector<Inference> batch = take_batch(lock);
    lock.unlock();
    const Clock::time_point begin = Clock::now();
    const bool computed = compute(batch);
    const std::chrono::duration<double> took = Clock::now() - begin;
    // Counted before they are answered: whoever has an answer finds it counted.
    lock.lock();
    counts_.images += batch.size();
    counts_.batches += batch.empty() ? 0 : 1;
    counts_.busy_seconds += took.count();
    lock.unlock();
    answer(batch, computed);
    batch.clear();
    lock.lock();
    task_is_next = true;
  }
  std::deque<Waiting> rest = std::move(waiting_);
  std::deque<std::function<void()>> tasks = std::move(tasks_);
  lock.unlock();
  for (Waiting& each : rest) each.inference.done({});
  for (const std::function<void()>& task : tasks) task();
}

std::vector<Inference> InferenceQueue::take_batch(std::unique_lock<std::mutex>& lock) {
  const ModelPtr model = waiting_.front().inference.model;
  const auto most = static_cast<size_t>(model->classifier().max_batch());
  const Clock::time_point until = waiting_.front().since + most_wait_;
  const auto gathered = [&] {
    return static_cast<size_t>(
        std::count_if(waiting_.begin(), waiting_.end(),
                      [&](const Waiting& each) { return each.inference.model == model; }));
  };
  // Nobody else takes from the queue: what has been counted stays there.
  while (!stopping_ && announced_ > 0 && gathered() < most)
    if (changed_.wait_until(lock, until) == std::cv_status::timeout) break;
  std::vector<Inference> batch;
  std::vector<Inference> dropped;
  const Clock::time_point now = Clock::now();
  for (auto at = waiting_.begin(); at != waiting_.end() && batch.size() < most;) {
    Inference& each = at->inference;
    const bool given_up = each.gone.stop_requested() || each.deadline < now;
    if (!given_up && each.model != model) {
      ++at;
      continue;
    }
    (given_up ? dropped : batch).push_back(std::move(each));
    at = waiting_.erase(at);
  }
  counts_.dropped += dropped.size();
  if (!dropped.empty()) {
    lock.unlock();
    for (Inference& each : dropped) each.done({});
    lock.lock();
  }
  return batch;
}

bool InferenceQueue::compute(const std::vector<Inference>& batch) {
  if (batch.empty()) return true;
  const Classifier& classifier = batch.front().model->classifier();
  const size_t elements = classifier.input_elements();
  const size_t classes = classifier.classes().size();
  inputs_.resize(batch.size() * elements);
  logits_.resize(batch.size() * classes);
  for (size_t i = 0; i < batch.size(); ++i)
    std::copy(batch[i].input.begin(), batch[i].input.end(), &inputs_[i * elements]);
  try {
    classifier.run(inputs_, static_cast<int>(batch.size()), logits_);
  } catch (const std::exception&) {
    return false;  // no memory for the engine's buffers
  }
  return true;
}

void InferenceQueue::answer(std::vector<Inference>& batch, bool computed) const {
  if (batch.empty()) return;
  const size_t classes = batch.front().model->classifier().classes().size();
  for (size_t i = 0; i < batch.size(); ++i) {
    const float* row = &logits_[i * classes];
    batch[i].done(computed ? std::vector<float>(row, row + classes) : std::vector<float>());
  }
}

}  // namespace graft::serving
