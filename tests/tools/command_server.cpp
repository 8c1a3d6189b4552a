// graft, or graft-train, as a server for tests that run it thousands of times: what takes most of a
// run's start, libraries and a sanitizer's tables, is there once, and each request has a process of
// its own.
//
// A request is a line on standard input: folder for $XDG_CACHE_HOME, file for standard error,
// seconds allowed, then the command and its arguments, all separated by tabs. The answer is a line:
// wait status and peak memory in kilobytes.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

int served_main(int argc, char** argv);

namespace {

constexpr size_t kFirstArgument = GRAFT_SERVES_TRAINING ? 3 : 2;

[[noreturn]] void serve(std::vector<std::string> words) {
  ::setenv("XDG_CACHE_HOME", words.at(0).c_str(), 1);
  const int null = ::open("/dev/null", O_RDWR);
  const int errors = ::open(words.at(1).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (null < 0 || errors < 0) ::_exit(99);
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  ::dup2(errors, STDERR_FILENO);
  ::alarm(static_cast<unsigned>(std::stoi(words.at(2))));
  words.at(2) = "graft";  // stands before a command; graft-train begins with its own
  std::vector<char*> arguments;
  for (size_t i = kFirstArgument; i < words.size(); ++i) arguments.push_back(words[i].data());
  const int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  const int code = served_main(count, arguments.data());
  std::cout.flush();
  std::fflush(nullptr);
  ::_exit(code);  // what LibTorch does at a program's end takes longer than a command
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> words;
    std::istringstream rest(line);
    for (std::string word; std::getline(rest, word, '\t');) words.push_back(word);
    const pid_t child = ::fork();
    if (child < 0) return 1;
    if (child == 0) serve(std::move(words));
    int status = 0;
    rusage usage{};
    if (::wait4(child, &status, 0, &usage) < 0) return 1;
    std::cout << status << ' ' << usage.ru_maxrss << std::endl;
  }
  return 0;
}
