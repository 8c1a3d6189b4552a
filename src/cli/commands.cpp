#include "cli/commands.h"

#include <array>
#include <string>

#include "cli/common.h"

namespace graft::cli {

std::span<const Command> commands() {
  static constexpr std::array<Command, 17> kCommands = {{
      {"train", run_train, "DATA", "train a classifier on a folder of images"},
      {"evaluate", run_evaluate, "MODEL DATA", "metrics on labelled images"},
      {"predict", run_predict, "MODEL PATH…", "classify images or folders of them"},
      {"features", run_features, "PATH…", "activations of a backbone as .npy, .npz, .csv"},
      {"export", run_export, "MODEL", "a model for ONNX, Keras or PyTorch"},
      {"serve", run_serve, "MODEL…", "classify over HTTP, with a page for browsers"},
      {"summary", run_summary, "[MODEL]", "layers, shapes, parameters"},
      {"weights", run_weights, "ACTION", "list, download, verify pretrained weights"},
      {"check", run_check, "DATA", "damaged, odd and identical images, leaks"},
      {"preview", run_preview, "DATA", "a contact sheet of augmented images"},
      {"compare", run_compare, "RUN…", "training runs side by side"},
      {"cache", run_cache, "ACTION", "list or clear cached features"},
      {"demo", run_demo, "", "the whole story, offline, in a minute"},
      {"bench", run_bench, "", "this machine's speed, layer by layer"},
      {"completion", run_completion, "SHELL", "completions for bash, zsh or fish"},
      {"man", run_man, "[COMMAND]", "manual pages"},
      {"help", run_help, "[COMMAND]", "how a command is used"},
  }};
  return kCommands;
}

void visit_options(const Command& command, const std::function<void(const CLI::App&)>& look) {
  const AppVisit visit(look);
  std::string name(command.name);
  char* words[] = {name.data(), nullptr};
  command.run(1, words);
}

}  // namespace graft::cli
