// graft-train as a server for tests that run it thousands of times: LibTorch, which takes most of a
// run's start, is loaded once, and each request has a process of its own.
//
// A request is a line on standard input: folder for $XDG_CACHE_HOME, file for standard error,
// seconds allowed, then the arguments, all separated by tabs. The answer is a line: wait status and
// peak memory in kilobytes.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

int graft_train_main(int argc, char** argv);

namespace {

[[noreturn]] void serve(std::vector<std::string> words) {
  ::setenv("XDG_CACHE_HOME", words.at(0).c_str(), 1);
  const int null = ::open("/dev/null", O_RDWR);
  const int errors = ::open(words.at(1).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (null < 0 || errors < 0) ::_exit(99);
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  ::dup2(errors, STDERR_FILENO);
  ::alarm(static_cast<unsigned>(std::stoi(words.at(2))));
  std::vector<char*> arguments;
  for (size_t i = 3; i < words.size(); ++i) arguments.push_back(words[i].data());
  arguments.push_back(nullptr);
  std::exit(graft_train_main(static_cast<int>(arguments.size()) - 1, arguments.data()));
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
