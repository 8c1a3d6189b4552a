#include "model/request_queue.h"

#include <algorithm>
#include <exception>
#include <utility>

namespace graft {

RequestQueue::RequestQueue(std::vector<std::unique_ptr<engine::Executor>> engines)
    : in_(static_cast<size_t>(engines.front()->input_elements())),
      out_(static_cast<size_t>(engines.front()->output_elements())),
      max_batch_(engines.front()->max_batch()) {
  for (std::unique_ptr<engine::Executor>& engine : engines) {
    workers_.push_back({std::move(engine), {}, {}});
    idle_.push_back(&workers_.back());
  }
}

engine::EngineMemory RequestQueue::prepare(int count) {
  engine::EngineMemory all;
  for (Worker& worker : workers_) {
    const engine::EngineMemory one = worker.engine->prepare(count);
    all.weights = one.weights;
    all.buffers += one.buffers;
  }
  return all;
}

void RequestQueue::run(std::span<const float> inputs, int count, std::span<float> outputs) {
  // In pieces that fit into a batch.
  std::vector<Request> requests;
  for (int done = 0; done < count; done += max_batch_) {
    const auto at = static_cast<size_t>(done);
    requests.push_back({inputs.data() + at * in_, outputs.data() + at * out_,
                        std::min(max_batch_, count - done), false, nullptr});
  }
  std::unique_lock lock(mutex_);
  for (Request& request : requests) waiting_.push_back(&request);
  for (Request& request : requests) {
    while (!request.done) {
      if (idle_.empty() || waiting_.empty()) {
        changed_.wait(lock);
        continue;
      }
      Worker& worker = *idle_.back();
      idle_.pop_back();
      std::vector<Request*> batch;
      int images = 0;
      while (!waiting_.empty() && images + waiting_.front()->count <= max_batch_) {
        images += waiting_.front()->count;
        batch.push_back(waiting_.front());
        waiting_.pop_front();
      }
      lock.unlock();
      serve(worker, batch);
      lock.lock();
      for (Request* each : batch) each->done = true;
      idle_.push_back(&worker);
      changed_.notify_all();
    }
  }
  lock.unlock();
  for (const Request& request : requests)
    if (request.error) std::rethrow_exception(request.error);
}

void RequestQueue::serve(Worker& worker, const std::vector<Request*>& batch) {
  try {
    if (batch.size() == 1) {
      const Request& only = *batch.front();
      worker.engine->run(only.in, only.count, only.out);
      return;
    }
    int images = 0;
    for (const Request* each : batch) images += each->count;
    worker.inputs.resize(static_cast<size_t>(images) * in_);
    worker.outputs.resize(static_cast<size_t>(images) * out_);
    float* to = worker.inputs.data();
    for (const Request* each : batch)
      to = std::copy_n(each->in, static_cast<size_t>(each->count) * in_, to);
    worker.engine->run(worker.inputs.data(), images, worker.outputs.data());
    const float* from = worker.outputs.data();
    for (const Request* each : batch) {
      const size_t floats = static_cast<size_t>(each->count) * out_;
      std::copy_n(from, floats, each->out);
      from += floats;
    }
  } catch (...) {
    for (Request* each : batch) each->error = std::current_exception();
  }
}

}  // namespace graft
