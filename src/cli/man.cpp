// graft man: manual pages, made of the options that the commands have (man(7), groff_man(7)).
#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"

namespace graft::cli {
namespace {

/// Text as roff takes it literally: a line may not begin with a dot or quote, and other characters
/// than ASCII's have names.
std::string roff(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) {
      out += std::string("\\&") + text[i];
    } else if (c >= 0xE0) {  // three bytes, as all of ours have, or two
      out += fmt::format("\\[u{:04X}]",
                         (c & 0x0FU) << 12U | (text[i + 1] & 0x3FU) << 6U | (text[i + 2] & 0x3FU));
      i += 2;
    } else if (c >= 0xC0) {
      out += fmt::format("\\[u{:04X}]", (c & 0x1FU) << 6U | (text[i + 1] & 0x3FU));
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string page_name(const Command& command) { return "graft-" + std::string(command.name); }

std::string upper(std::string text) {
  for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return text;
}

std::string title(const std::string& name) {
  return fmt::format(".TH {} 1 \"\" \"graft {}\" \"Graft\"\n", upper(roff(name)), GRAFT_VERSION);
}

constexpr std::string_view kExitStatus =
    ".SH EXIT STATUS\n"
    "0: all went well. 1: a file, an image or the network is not what it should be, or a result "
    "could not be written. 2: the command line is not. 128 + N: signal N ended it.\n";

std::string option_entry(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames())
    names.push_back("\\fB\\-" + roff(name) + "\\fR");
  for (const std::string& name : option.get_lnames())
    names.push_back("\\fB\\-\\-" + roff(name) + "\\fR");
  std::string out = fmt::format(".TP\n{}", fmt::join(names, ", "));
  if (option.get_items_expected_min() > 0 && option.get_type_size_min() > 0)
    out += fmt::format(" \\fI{}\\fR", roff(option.get_type_name()));
  out += "\n" + roff(option.get_description());
  if (!option.get_default_str().empty() &&
      option.get_description().find("(default") == std::string::npos)
    out += fmt::format(" (default: {})", roff(option.get_default_str()));
  return out + "\n";
}

std::string page_of(const Command& command) {
  std::string out;
  visit_options(command, [&](const CLI::App& app) {
    out = title(page_name(command));
    out += fmt::format(".SH NAME\n{} \\- {}\n", roff(page_name(command)), roff(command.summary));
    out += fmt::format(".SH SYNOPSIS\n\\fBgraft {}\\fR [\\fIOPTIONS\\fR] {}\n", command.name,
                       roff(command.arguments));
    out += fmt::format(".SH DESCRIPTION\n{}\n", roff(app.get_description()));
    std::vector<std::string> groups;
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_positional())
        out += fmt::format(".TP\n\\fI{}\\fR\n{}\n", roff(option->get_single_name()),
                           roff(option->get_description()));
      else if (std::find(groups.begin(), groups.end(), option->get_group()) == groups.end())
        groups.push_back(option->get_group());
    }
    out += ".SH OPTIONS\n";
    for (const std::string& group : groups) {
      if (groups.size() > 1) out += fmt::format(".SS {}\n", roff(group));
      for (const CLI::Option* option : app.get_options())
        if (!option->get_positional() && option->get_group() == group) out += option_entry(*option);
    }
    out += kExitStatus;
    std::string footer = app.get_footer();
    constexpr std::string_view kExamples = "Examples:\n";
    if (footer.starts_with(kExamples)) {
      footer.erase(0, kExamples.size());
      size_t end = 0;  // of the indented lines
      while (end < footer.size() && footer[end] == ' ')
        end = std::min(footer.find('\n', end), footer.size() - 1) + 1;
      out += fmt::format(".SH EXAMPLES\n.EX\n{}.EE\n",
                         roff(std::string(footer.substr(0, end)) +
                              (footer.substr(0, end).ends_with('\n') ? "" : "\n")));
      footer.erase(0, end);
    }
    if (!footer.empty()) out += fmt::format(".SH NOTES\n{}\n", roff(footer));
    out += ".SH SEE ALSO\n\\fBgraft\\fR(1)\n";
  });
  return out;
}

std::string overview() {
  std::string out = title("graft");
  out +=
      ".SH NAME\ngraft \\- image classifiers by transfer learning from VGG\n"
      ".SH SYNOPSIS\n\\fBgraft\\fR \\fICOMMAND\\fR \\&...\n"
      ".SH DESCRIPTION\nTurns a folder of labelled images into an image classifier: a VGG "
      "backbone, pretrained, with a new head.\n.SH COMMANDS\n";
  for (const Command& command : commands())
    out += fmt::format(".TP\n\\fB{}\\fR(1)\n{}\n", roff(page_name(command)), roff(command.summary));
  out += kExitStatus;
  return out +
         ".SH ENVIRONMENT\n"
         ".TP\n\\fBXDG_CACHE_HOME\\fR\nWhere weights and features are kept, under graft/ (default: "
         "~/.cache).\n"
         ".TP\n\\fBGRAFT_WEIGHTS_URL\\fR\nAnother server that has the published weights.\n"
         ".TP\n\\fBGRAFT_LIBEXEC\\fR\nThe folder of graft\\-read\\-h5 and graft\\-train, where it "
         "is "
         "not beside the program.\n";
}

/// On a terminal, by the system's own viewer; false where that is not to be had.
bool show(const std::string& page) {
  if (::isatty(STDOUT_FILENO) == 0 || std::system("command -v man >/dev/null 2>&1") != 0)
    return false;
  std::FILE* viewer = ::popen("man -l -", "w");
  if (viewer == nullptr) return false;
  std::fwrite(page.data(), 1, page.size(), viewer);
  return ::pclose(viewer) == 0;
}

}  // namespace

int run_man(int argc, char** argv) {
  std::string wanted;
  std::string folder;
  std::vector<std::string> names;
  for (const Command& command : commands()) names.emplace_back(command.name);
  CLI::App app(
      "Shows a manual page, of graft or of one of its commands; not on a terminal, its source.",
      "graft man");
  auto* one =
      app.add_option("COMMAND", wanted, "The command")->check(one_of(names))->type_name("COMMAND");
  app.add_option("--output", folder, "Write all pages into this folder instead")
      ->excludes(one)
      ->type_name("DIR");
  app.footer(
      "Examples:\n"
      "  graft man train\n"
      "  graft man --output ~/.local/share/man/man1");
  return run_app(app, argc, argv, [&] {
    if (!folder.empty()) {
      make_folder(folder);
      write_file_atomic(fs::path(folder) / "graft.1", overview());
      for (const Command& command : commands())
        write_file_atomic(fs::path(folder) / (page_name(command) + ".1"), page_of(command));
      return 0;
    }
    std::string page = overview();
    for (const Command& command : commands())
      if (command.name == wanted) page = page_of(command);
    if (!show(page)) print_result("{}", page);
    return 0;
  });
}

}  // namespace graft::cli
