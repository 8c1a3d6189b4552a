#include "train/batch_norm.h"

#include <vector>

#include "train/group.h"

namespace graft {
namespace {

using torch::Tensor;

/// All dimensions but the channels'.
std::vector<int64_t> others(const Tensor& x) {
  return x.dim() == 4 ? std::vector<int64_t>{0, 2, 3} : std::vector<int64_t>{0};
}

/// (C) as it lies in x.
Tensor along(const Tensor& channels, const Tensor& x) {
  return x.dim() == 4 ? channels.view({1, -1, 1, 1}) : channels.view({1, -1});
}

/// (C) in double precision, of one process or of all.
Tensor channel_sum(const Tensor& x) { return x.sum(others(x), /*keepdim=*/false, torch::kDouble); }

void add_up(Tensor& sums, const BatchPart& part) {
  if (part.empty) sums.zero_();
  Tensor on_cpu = sums.to(torch::kCPU).contiguous();
  part.group->sum(on_cpu);
  sums = on_cpu.to(sums.device());
}

struct GroupBatchNorm : torch::autograd::Function<GroupBatchNorm> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                        const Tensor& weight, const Tensor& bias, double epsilon,
                        int64_t part_address, int64_t running_address) {
    // Pointers do not fit autograd's values but as numbers.
    const BatchPart part = *reinterpret_cast<const BatchPart*>(part_address);
    const auto& running = *reinterpret_cast<const RunningStatistics*>(running_address);
    const double count = static_cast<double>(part.count) * static_cast<double>(x.numel()) /
                         static_cast<double>(x.size(0) * x.size(1));
    Tensor mean = channel_sum(x) / count;
    add_up(mean, part);
    const Tensor centred = x - along(mean.to(x.scalar_type()), x);
    Tensor variance = channel_sum(centred * centred) / count;
    add_up(variance, part);
    running.mean.lerp_(mean.to(running.mean.scalar_type()), running.momentum);
    running.variance.lerp_((variance * (count / (count - 1))).to(running.variance.scalar_type()),
                           running.momentum);
    const Tensor scale = (variance + epsilon).rsqrt().to(x.scalar_type());
    const Tensor normal = centred * along(scale, x);
    context->save_for_backward({normal, weight, scale});
    context->saved_data["group"] = reinterpret_cast<int64_t>(part.group);
    context->saved_data["empty"] = part.empty;
    context->saved_data["count"] = count;
    return normal * along(weight, x) + along(bias, x);
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor& normal = saved[0];
    const Tensor& gradient = gradients[0];
    BatchPart part;
    part.group = reinterpret_cast<Group*>(context->saved_data["group"].toInt());
    part.empty = context->saved_data["empty"].toBool();
    const double count = context->saved_data["count"].toDouble();
    const Tensor of_bias = channel_sum(gradient);
    const Tensor of_weight = channel_sum(gradient * normal);
    const int64_t channels = of_bias.numel();
    Tensor sums = torch::cat({of_bias, of_weight});
    add_up(sums, part);
    const Tensor means = (sums / count).to(gradient.scalar_type());
    const Tensor of_x = along(saved[1] * saved[2], normal) *
                        (gradient - along(means.narrow(0, 0, channels), normal) -
                         normal * along(means.narrow(0, channels, channels), normal));
    // Those of the parameters are summed over the group with all others.
    const auto type = saved[1].scalar_type();
    return {of_x, of_weight.to(type), of_bias.to(type), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor group_batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const RunningStatistics& running, double epsilon, const BatchPart& part) {
  return GroupBatchNorm::apply(x, weight, bias, epsilon, reinterpret_cast<int64_t>(&part),
                               reinterpret_cast<int64_t>(&running));
}

}  // namespace graft
