// Where networks are computed: on the processor by Graft's own engine, or on a GPU by LibTorch.
//
//   graft::ClassifierOptions options;
//   options.device = graft::open_device("cuda");
//   const graft::Classifier pets = graft::Classifier::load("runs/pets", options);
//
// open_device() is in graft_train, which links LibTorch; all else takes what it gives.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graft/precision.h"

#pragma GCC visibility push(default)
namespace graft {

/// A device that has been opened. Null stands for the processor and Graft's engine.
class ComputeDevice;

/// Opens a device: "cpu" (null); "cuda", "cuda:N"; "torch-cpu", LibTorch on the processor, for
/// tests of the rest; "auto", a GPU where LibTorch has one, else null. `place` is this process's
/// number among those of its machine: "cuda" and "auto" give each process of a group a GPU of its
/// own, as far as there are that many. Throws Error(usage) for other words, Error(input) where
/// there is no such device.
std::shared_ptr<const ComputeDevice> open_device(const std::string& name, int place = 0);

/// "cpu" for null, else "cuda:0" or "torch-cpu".
std::string device_name(const ComputeDevice* device);

/// Throws Error(usage) for a name that open_device() does not take. Opens nothing.
void check_device(const std::string& name);
/// The names without numbers.
std::vector<std::string> device_names();

/// `precision`, or what is made of `automatic`, on a device of that name: bf16 on "cuda", fp32 on
/// "torch-cpu"; for "cpu", and for "auto", which may come to it, as the processor has it.
Precision resolve_precision(Precision precision, const std::string& device);

}  // namespace graft
#pragma GCC visibility pop
