#include "graft/dashboard.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <csignal>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/file.h"
#include "graft/image.h"
#include "report/html.h"
#include "report/loopback_server.h"
#include "support.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  EXPECT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(socket);
  return ntohs(address.sin_port);
}

/// A client that writes what it wants, when it wants.
class Client {
 public:
  explicit Client(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const sockaddr_in address = loopback(port);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// False once the server has closed the connection.
  bool send(std::string_view text) const {
    return ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(text.size());
  }

  /// What comes until the server closes, at most `seconds` long.
  [[nodiscard]] std::string receive(double seconds) const {
    std::string all;
    const auto start = Clock::now();
    while (seconds_since(start) < seconds) {
      pollfd poll{socket_, POLLIN, 0};
      if (::poll(&poll, 1, 50) <= 0) continue;
      char buffer[4096];
      const ssize_t got = ::recv(socket_, buffer, sizeof buffer, 0);
      if (got <= 0) break;
      all.append(buffer, static_cast<size_t>(got));
    }
    return all;
  }

 private:
  int socket_;
};

std::string get(int port, const std::string& path, const std::string& headers) {
  const Client client(port);
  EXPECT_TRUE(client.send("GET " + path + " HTTP/1.1\r\n" + headers + "\r\n"));
  return client.receive(5);
}

std::string host(int port) { return "Host: 127.0.0.1:" + std::to_string(port) + "\r\n"; }

TEST(Dashboard, LeavesTheProcessAsItWas) {
  struct sigaction before {};
  struct sigaction after {};
  ::sigaction(SIGPIPE, nullptr, &before);
  { const Dashboard dashboard(18'743, "title"); }
  ::sigaction(SIGPIPE, nullptr, &after);
  EXPECT_EQ(after.sa_handler, before.sa_handler);
  EXPECT_ERROR(Dashboard(70'000, "title"), ErrorKind::usage, "70000");
  EXPECT_ERROR(Dashboard(0, "title"), ErrorKind::usage, "port 0");
}

TEST(Dashboard, NamesOfTheLoopbackAddress) {
  for (const char* own : {"127.0.0.1:8080", "localhost:8080", "LocalHost:8080"})
    EXPECT_TRUE(names_loopback(own, 8080)) << own;
  for (const char* other : {"", "127.0.0.1", "localhost", "localhost:80", "elsewhere.example:8080",
                            "localhost:8080.example", "127.0.0.1:08080"})
    EXPECT_FALSE(names_loopback(other, 8080)) << other;
  for (const char* own : {"127.0.0.1", "localhost", "127.0.0.1:80"})
    EXPECT_TRUE(names_loopback(own, 80)) << own << ": browsers leave the default port out";
}

TEST(Dashboard, ATitleMayBeThePlaceHolder) {
  const int port = free_port();
  const Dashboard dashboard(port, "x on @TITLE@ <b>");
  const std::string page = get(port, "/", host(port));
  EXPECT_NE(page.find("<title>x on @TITLE@ &lt;b&gt;</title>"), std::string::npos);
  EXPECT_NE(page.find("<h1>x on @TITLE@ &lt;b&gt;</h1>"), std::string::npos);
}

TEST(Dashboard, TheBestEpochIsTheOneItWasTold) {
  const int port = free_port();
  Dashboard dashboard(port, "t");
  EpochRecord record;
  record.val_accuracy = 0.5;
  record.val_loss = 2;
  record.epoch = 1;
  dashboard.past_epoch(record, false);
  record.epoch = 2;
  record.val_loss = 1;
  dashboard.past_epoch(record, true);
  record.epoch = 3;
  dashboard.epoch(record, false);
  const std::string reply = get(port, "/run.json", host(port));
  const nlohmann::json run = nlohmann::json::parse(reply.substr(reply.find("\r\n\r\n") + 4));
  EXPECT_EQ(run["best"]["epoch"], 2);
  EXPECT_EQ(run["history"].size(), 3U);
}

nlohmann::json run_json(int port) {
  const std::string reply = get(port, "/run.json", host(port));
  return nlohmann::json::parse(reply.substr(reply.find("\r\n\r\n") + 4));
}

TEST(Dashboard, RatesAndTimesAreThoseOfTheWork) {
  const int port = free_port();
  Dashboard dashboard(port, "t");
  dashboard.stage(TrainStage::features);
  dashboard.progress({.task = "features, train", .unit = "images", .done = 30, .total = 60});
  nlohmann::json run = run_json(port);
  EXPECT_EQ(run["stage"], "features");
  EXPECT_EQ(run["task"]["done"], 30);
  EXPECT_EQ(run["share"], 0);
  dashboard.stage(TrainStage::training);
  dashboard.begin(4);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  // Told of its first step, the epoch has run for a while.
  dashboard.step({.epoch = 1, .epochs = 4, .done = 50, .images = 100, .loss = 1, .accuracy = 0});
  run = run_json(port);
  EXPECT_TRUE(run["task"].is_null());
  EXPECT_GE(run["now"]["seconds"].get<double>(), 0.6);
  EXPECT_LT(run["now"]["done"].get<double>() / run["now"]["seconds"].get<double>(), 50 / 0.6 + 1);
  EXPECT_DOUBLE_EQ(run["share"].get<double>(), 0.125);
  // 0.6 s for an eighth.
  EXPECT_GE(run["left"].get<double>(), 7 * 0.6 - 0.1);
  dashboard.epoch({1, 1, 0.5, 1, 0.5, 1e-3, 0.7}, true);
  run = run_json(port);
  EXPECT_DOUBLE_EQ(run["share"].get<double>(), 0.25);
  EXPECT_GE(run["left"].get<double>(), 3 * 0.6 - 0.1);
  EXPECT_EQ(run["best"]["epoch"], 1);
  EXPECT_EQ(run["later"], 0);
  dashboard.stage(TrainStage::evaluation);
  run = run_json(port);
  EXPECT_EQ(run["share"], 1);
  EXPECT_FALSE(run.contains("left"));
  EXPECT_GE(run["stages"]["training"].get<double>(), 0.6);
}

TEST(Dashboard, TimesLeftAreOfThePhaseWhereOthersFollow) {
  const int port = free_port();
  Dashboard dashboard(port, "t", {}, {{.epochs = 2}, {.epochs = 30}});
  EXPECT_EQ(run_json(port)["epochs"], 32) << "before anything is computed";
  dashboard.stage(TrainStage::training);
  dashboard.begin(32);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  dashboard.step({.epoch = 1, .epochs = 32, .done = 50, .images = 100, .loss = 1, .accuracy = 0});
  nlohmann::json run = run_json(port);
  EXPECT_EQ(run["later"], 30);
  EXPECT_NEAR(run["left"].get<double>(), 3 * 0.6, 0.5);
  dashboard.epoch({1, 1, 0.5, 1, 0.5, 1e-3, 0.7}, true);
  dashboard.epoch({2, 1, 0.5, 1, 0.5, 1e-3, 0.7}, true);
  EXPECT_EQ(run_json(port)["later"], 0);
}

TEST(Dashboard, LossesThatAreNotFiniteAreNoNumbers) {
  const int port = free_port();
  Dashboard dashboard(port, "t");
  dashboard.epoch({1, std::nan(""), 0.5, 1, 0.5, 1e-3, 0.7}, true);
  EXPECT_TRUE(run_json(port)["history"][0]["loss"].is_null());
  EXPECT_NE(get(port, "/curves", host(port)).find("<svg"), std::string::npos);
}

TEST(Dashboard, ShowsWhatTheLastEpochGotWrong) {
  const int port = free_port();
  testing::TemporaryFolder folder;
  const std::filesystem::path photo = folder.path() / "<b>.png";
  save_image({4, 4, std::vector<uint8_t>(48, 90)}, photo);
  Dashboard dashboard(port, "t", folder.path());  // without a checkpoint: photos alone
  dashboard.mistakes(3,
                     {{photo, "<i>sea", "street", 1, 0.957}, {"gone.png", "sea", "sky", 2, 0.5}});
  std::string page;
  for (int i = 0; i < 100 && page.find("epoch 3") == std::string::npos; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    page = get(port, "/mistakes", host(port));
  }
  EXPECT_NE(page.find("Worst mistakes of epoch 3"), std::string::npos);
  EXPECT_NE(page.find("alt=\"&lt;i&gt;sea, classified as street, 96 %\""), std::string::npos);
  EXPECT_NE(page.find("no image"), std::string::npos);
  EXPECT_EQ(page.find("<i>sea"), std::string::npos);
  // Under its class's folder, once.
  const std::string shown =
      html::escape((folder.path().filename() / photo.filename()).string()) + "</code>";
  const size_t at = page.find(">" + shown);
  EXPECT_NE(at, std::string::npos) << page;
  EXPECT_EQ(page.find(">" + shown, at + 1), std::string::npos);
  EXPECT_EQ(run_json(port)["gallery"], 1);
}

TEST(Dashboard, GivesTheReportToAPageThatIsOpen) {
  const int port = free_port();
  testing::TemporaryFolder folder;
  write_file_atomic(folder.path() / run_files::kReport, "the report");
  graft::Run run;
  run.folder = folder.path();
  run.best_epoch = 2;
  const auto start = Clock::now();
  std::string report;
  std::thread page;
  {
    Dashboard dashboard(port, "t");
    EXPECT_NE(get(port, "/report.html", host(port)).find("no report"), std::string::npos);
    dashboard.stage(TrainStage::report);
    dashboard.finished(run);
    const nlohmann::json end = run_json(port)["finished"];
    EXPECT_EQ(end["report"], true);
    EXPECT_EQ(end["best_epoch"], 2);
    page = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      report = get(port, "/report.html", host(port));
      EXPECT_NE(get(port, "/goodbye", host(port)).find("goodbye"), std::string::npos);
    });
  }
  EXPECT_LT(seconds_since(start), 2.9) << "it was not to wait for longer than the page needs";
  page.join();
  EXPECT_NE(report.find("the report"), std::string::npos);
  // Without a page, or with one that is gone, nothing is waited for.
  const auto again = Clock::now();
  {
    Dashboard dashboard(port, "t");
    dashboard.finished(run);
  }
  EXPECT_LT(seconds_since(again), 1.0);
}

TEST(Dashboard, OtherSitesGetNothingToShow) {
  const int port = free_port();
  const Dashboard dashboard(port, "t");
  for (const char* path : {"/run.json", "/mistakes", "/report.html", "/curves"})
    EXPECT_NE(get(port, path, host(port)).find("Cross-Origin-Resource-Policy: same-origin"),
              std::string::npos)
        << path;
  const std::string page = get(port, "/", host(port));
  EXPECT_NE(page.find("frame-ancestors 'none'"), std::string::npos);
  EXPECT_EQ(page.find("script-src 'unsafe-inline'"), std::string::npos);
}

TEST(Dashboard, OnlyItsOwnNameAndOnlyReading) {
  const int port = free_port();
  const Dashboard dashboard(port, "t");
  EXPECT_TRUE(get(port, "/run.json", "Host: elsewhere.example\r\n").starts_with("HTTP/1.1 403"));
  EXPECT_TRUE(get(port, "/run.json", "").starts_with("HTTP/1.1 403"));
  EXPECT_TRUE(get(port, "/run.json", host(port) + host(port)).starts_with("HTTP/1.1 403"));
  const Client post(port);
  EXPECT_TRUE(post.send("POST / HTTP/1.1\r\n" + host(port) + "Content-Length: 0\r\n\r\n"));
  EXPECT_TRUE(post.receive(5).starts_with("HTTP/1.1 405"));
}

TEST(Dashboard, HeadersWithoutEndAreCut) {
  const int port = free_port();
  const Dashboard dashboard(port, "t");
  const Client client(port);
  const auto start = Clock::now();
  bool taken = client.send("GET / HTTP/1.1\r\n" + host(port));
  constexpr int kMillion = 1'000'000;
  int sent = 0;
  while (taken && sent < kMillion && seconds_since(start) < 5) {
    taken = client.send("x-a: b\r\n");
    ++sent;
  }
  EXPECT_FALSE(taken) << sent << " headers";
  EXPECT_LT(sent, kMillion);
  EXPECT_TRUE(get(port, "/", host(port)).starts_with("HTTP/1.1 200"));
}

TEST(Dashboard, SlowClientsHoldUpNeitherItNorItsEnd) {
  const int port = free_port();
  std::optional<Dashboard> dashboard(std::in_place, port, "t");
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 6; ++i) slow.push_back(std::make_unique<Client>(port));
  // A byte now and then: each is cut a few seconds after it was accepted, and others are answered.
  const auto start = Clock::now();
  size_t open = slow.size();
  while (open > 2 && seconds_since(start) < 8) {
    open = 0;
    for (const auto& client : slow) open += client->send("G") ? 1 : 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_LT(seconds_since(start), 6);
  EXPECT_TRUE(get(port, "/", host(port)).starts_with("HTTP/1.1 200"));
  for (int i = 0; i < 6; ++i) {
    slow.push_back(std::make_unique<Client>(port));
    slow.back()->send("GET / HT");
  }
  const auto end = Clock::now();
  dashboard.reset();
  EXPECT_LT(seconds_since(end), 1);
}

TEST(Dashboard, ACrowdThatStandsStillHoldsUpNobody) {
  const int port = free_port();
  std::optional<Dashboard> dashboard(std::in_place, port, "t");
  std::vector<std::unique_ptr<Client>> idle;
  for (int i = 0; i < 100; ++i) {
    idle.push_back(std::make_unique<Client>(port));
    if (i % 2 == 1) idle.back()->send("GET / HTTP/1.1\r\nx: ");
  }
  for (int i = 0; i < 20; ++i) {
    const auto start = Clock::now();
    EXPECT_TRUE(get(port, "/", host(port)).starts_with("HTTP/1.1 200"));
    EXPECT_LT(seconds_since(start), 1);
  }
  // Of too many connections the oldest are cut, not the newest.
  for (int i = 0; i < 200; ++i) idle.push_back(std::make_unique<Client>(port));
  EXPECT_TRUE(get(port, "/", host(port)).starts_with("HTTP/1.1 200"));
  const auto end = Clock::now();
  dashboard.reset();
  EXPECT_LT(seconds_since(end), 1);
}

TEST(Dashboard, EndsBeforeItHasBegun) {
  for (int i = 0; i < 20; ++i) const Dashboard dashboard(free_port(), "t");
}

TEST(Dashboard, APortThatIsTaken) {
  const int port = free_port();
  const Dashboard first(port, "t");
  EXPECT_ERROR(Dashboard(port, "t"), ErrorKind::io, std::to_string(port));
}

}  // namespace
}  // namespace graft
