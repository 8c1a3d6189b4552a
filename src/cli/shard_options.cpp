#include "cli/shard_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "base/fail.h"
#include "base/words.h"

namespace graft::cli {
namespace {

// Where batch systems put a task's number. All of these count from 0, but for Slurm, where an array
// is numbered as it is asked for.
constexpr std::array kVariables = {"SLURM_ARRAY_TASK_ID",       "JOB_COMPLETION_INDEX",
                                   "AWS_BATCH_JOB_ARRAY_INDEX", "CLOUD_RUN_TASK_INDEX",
                                   "BATCH_TASK_INDEX",          "TASK_ID"};

std::optional<uint32_t> number(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Nothing where the variable is not set, or empty.
std::optional<uint32_t> variable(const char* name) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return std::nullopt;
  const std::optional<uint32_t> value = number(text);
  if (!value)
    fail(ErrorKind::usage, "--shard: {} is '{}', which is no number of a task", name,
         clipped(text));
  return value;
}

uint32_t index_from_environment(uint32_t count) {
  const char* from = nullptr;
  std::optional<uint32_t> index;
  for (const char* name : kVariables) {
    const std::optional<uint32_t> value = variable(name);
    if (!value) continue;
    if (index && *index != *value)
      fail(ErrorKind::usage,
           "--shard: {} is {}, but {} is {}; name the shard itself, as in '--shard \"${}/{}\"'",
           from, *index, name, *value, from, count);
    if (!index) from = name;
    index = value;
  }
  if (!index)
    fail(ErrorKind::usage,
         "--shard: no batch system has numbered this task (none of {} is set); name the shard "
         "itself, as in '--shard 0/{}'",
         fmt::join(kVariables, ", "), count);
  // A whole array is refused where one of its tasks is: else an array from 1 would leave out the
  // first shard and fail in the last task, hours later.
  uint32_t most = *index;
  if (from == std::string_view(kVariables.front()))
    most = std::max(most, variable("SLURM_ARRAY_TASK_MAX").value_or(0));
  if (most >= count)
    fail(ErrorKind::usage,
         "--shard: {} goes up to {}, but {} shards are numbered from 0 to {}; number the tasks so "
         "(Slurm: --array=0-{})",
         from, most, count, count - 1, count - 1);
  return *index;
}

}  // namespace

void add_shard_options(CLI::App& app, ShardOptions& options, const std::string& merged) {
  const std::string group = "Several workers";
  app.add_option("--shard", options.shard,
                 "Only part I of N, from 0 to N - 1, into a file in the folder of -o; started "
                 "again, it goes on. auto/N takes I from SLURM_ARRAY_TASK_ID, "
                 "JOB_COMPLETION_INDEX and the like")
      ->type_name("I/N")
      ->group(group);
  app.add_option("--merge", options.parts,
                 "The parts that --shard made, or their folder: " + merged)
      ->expected(1, -1)
      ->type_name("PART")
      ->group(group);
}

Shard parse_shard(const std::string& text) {
  const size_t slash = text.find('/');
  const std::string_view left = std::string_view(text).substr(0, slash);
  const std::optional<uint32_t> count =
      slash == std::string::npos ? std::nullopt : number(std::string_view(text).substr(slash + 1));
  const bool automatic = left == "auto";
  const std::optional<uint32_t> index = number(left);
  if (!count || (!automatic && !index))
    fail(ErrorKind::usage, "--shard: '{}' is neither I/N, as in 0/8 to 7/8, nor auto/N",
         clipped(text));
  if (*count < 1 || *count > kMostShards)
    fail(ErrorKind::usage, "--shard: '{}': there are from 1 to {} shards", clipped(text),
         kMostShards);
  if (automatic) return {index_from_environment(*count), *count};
  if (*index >= *count)
    fail(ErrorKind::usage, "--shard: '{}': shards are numbered from 0, so the last of {} is {}/{}",
         clipped(text), *count, *count - 1, *count);
  return {*index, *count};
}

nlohmann::json shard_json(const Shard& shard, const std::filesystem::path& part, size_t images,
                          size_t earlier) {
  return {{"output", part.string()},
          {"shard", shard.index},
          {"shards", shard.count},
          {"images", images},
          {"earlier", earlier}};
}

void refuse_options_beside(const CLI::App& app, const std::string& with,
                           const std::vector<std::string>& allowed) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0) continue;
    const std::string name = option->get_name();
    const std::vector<std::string> common = {"--threads", "--quiet",  "--verbose",
                                             "--json",    "--output", with};
    const auto is_in = [&](const std::vector<std::string>& names) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    if (!is_in(common) && !is_in(allowed))
      fail(ErrorKind::usage, "{} does not go with {}; leave it out", name, with);
  }
}

}  // namespace graft::cli
