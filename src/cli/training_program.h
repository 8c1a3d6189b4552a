// The program that LibTorch is loaded into: `graft train` becomes it, and so do commands that are
// to compute on a device.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "cli/common.h"
#include "graft/device.h"

namespace graft::cli {

/// Sets the variables that it is to start with, for whoever starts it.
void prepare_training_program();
/// Replaces this process by graft-train with the same arguments, of which the first is the command.
/// exec, not fork: signals and exit codes pass through. Throws Error(io) where there is no such
/// program.
[[noreturn]] void become_training_program(char** argv);

/// --device of commands that run a finished network.
void add_device_option(CLI::App& app, std::string& device);

/// Opens the device of that name for a command, null for the processor.
using DeviceOpener = std::function<std::shared_ptr<const ComputeDevice>(
    const std::string& name, const CommonOptions& common)>;

/// In a program without LibTorch: null for the processor, and for "auto" where graft-train is not
/// installed; else this process becomes graft-train.
DeviceOpener opener_by_becoming(char** argv);

// Commands that compute on a device, as both programs run them; argv[0] is the command's name.
int run_predict_on(const DeviceOpener& open, int argc, char** argv);
int run_evaluate_on(const DeviceOpener& open, int argc, char** argv);
int run_features_on(const DeviceOpener& open, int argc, char** argv);

}  // namespace graft::cli
