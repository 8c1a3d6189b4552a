// Processes that train together, here threads of one.
#include "train/group.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "support.h"
#include "train/batch_norm.h"
#include "train/shards.h"

namespace graft {
namespace {

/// A free port, for a moment at least: the system gives another one to whoever asks next.
int some_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* any = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(::bind(fd, any, size), 0);
  EXPECT_EQ(::getsockname(fd, any, &size), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

void in_group(int size, const std::function<void(Group&)>& work) {
  const int port = some_port();
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        GroupPlace place;
        place.rank = rank;
        place.size = size;
        place.host = "127.0.0.1";
        place.port = port;
        Group group(place, {});
        work(group);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

/// What each process owns of something like the parameters is gathered whole, and comes back.
void expect_moments_to_return(ParameterShards& shards, const std::vector<torch::Tensor>& parameters,
                              const Group& group) {
  std::vector<torch::Tensor> moments;
  for (const torch::Tensor& p : shards.own()) moments.push_back(p.detach().clone());
  const std::vector<torch::Tensor> whole = shards.gather(moments);
  if (group.is_first()) {
    for (size_t i = 0; i < whole.size(); ++i) EXPECT_TRUE(whole[i].equal(parameters[i]));
  }
  std::vector<torch::Tensor> again;
  for (const torch::Tensor& m : moments) again.push_back(torch::zeros_like(m));
  shards.scatter(whole, again);
  for (size_t i = 0; i < again.size(); ++i) EXPECT_TRUE(again[i].equal(moments[i]));
}

TEST(Group, SumsAreTheSameEverywhere) {
  in_group(3, [](Group& group) {
    std::array<double, 2> figures{group.rank() + 1.0, 0.1};
    group.sum(figures);
    EXPECT_EQ(figures[0], 6);
    EXPECT_NEAR(figures[1], 0.3, 1e-12);
    EXPECT_EQ(group.share("a", group.is_first() ? "zero" : "other"), "zero");
    const torch::Tensor tensor = torch::full({4}, group.rank());
    EXPECT_EQ(group.gather(tensor).size(), group.is_first() ? 3U : 0U);
    EXPECT_EQ(group.all_gather(tensor)[2][0].item<int64_t>(), 2);
    group.meet("b");
    group.require_same("nothing", nlohmann::json{{"a", 1}});
  });
}

TEST(Group, EachNumberIsTakenOnce) {
  constexpr uint64_t kNumbers = 200;
  std::mutex mutex;
  std::vector<int> takers(kNumbers);
  in_group(3, [&](Group& group) {
    for (uint64_t n = group.take("work"); n < kNumbers; n = group.take("work")) {
      const std::lock_guard lock(mutex);
      ++takers[n];
    }
    EXPECT_LT(group.take("other"), 3U);
  });
  EXPECT_EQ(takers, std::vector<int>(kNumbers, 1));
}

TEST(Group, LeastAndCopiesOfAnyRank) {
  in_group(3, [](Group& group) {
    const torch::Tensor tensor = torch::arange(3).mul(group.rank() - 1);
    group.least(tensor);
    EXPECT_TRUE(tensor.equal(torch::tensor({0, -1, -2}, torch::kLong)));
    const torch::Tensor mine = torch::full({2}, group.rank());
    group.broadcast(mine, 2);
    EXPECT_EQ(mine[1].item<int64_t>(), 2);
  });
}

TEST(Group, CompressedGradientsKeepTheirDigits) {
  for (const auto compression : {GradientCompression::fp16, GradientCompression::bf16}) {
    const double digits = compression == GradientCompression::fp16 ? 1.0 / 2048 : 1.0 / 256;
    // Of any size: far below the least half, and above the greatest.
    for (const float size : {1e-30F, 1e-9F, 1.0F, 1e9F, 1e30F}) {
      torch::manual_seed(7);
      std::vector<torch::Tensor> all;
      for (int k = 0; k < 3; ++k) all.push_back(torch::randn({1000}) * size);
      in_group(3, [&](Group& group) {
        torch::Tensor parameter = torch::zeros({1000}).set_requires_grad(true);
        ParameterShards shards({parameter}, {}, group, compression);
        shards.begin_step(true);
        (parameter * all[static_cast<size_t>(group.rank())]).sum().backward();
        shards.finish_gradients();
        const int64_t slice = (1000 + 2) / 3;
        for (const torch::Tensor& p : shards.own()) {
          const auto part = [&](int k) {
            return all[static_cast<size_t>(k)].narrow(0, group.rank() * slice, p.numel());
          };
          const torch::Tensor most = part(0).abs().max(part(1).abs()).max(part(2).abs()).max();
          const torch::Tensor wrong = (p.grad() - (part(0) + part(1) + part(2))).abs().max();
          EXPECT_LE(wrong.item<double>(), 2.1 * digits * most.item<double>()) << size;
          EXPECT_GT(wrong.item<double>(), 0) << "nothing was rounded";
        }
        if (size == 1.0F) {  // what is not finite stays so
          shards.begin_step(true);
          (parameter * (group.rank() == 1 ? NAN : 1)).sum().backward();
          shards.finish_gradients();
          for (const torch::Tensor& p : shards.own())
            EXPECT_TRUE(p.grad().isnan().all().item<bool>());
        }
      });
    }
  }
}

TEST(Group, ADifferenceNamesItsRank) {
  try {
    in_group(2, [](Group& group) {
      try {
        group.require_same("its images", nlohmann::json{{"lr", group.is_first() ? 0.1 : 0.2}});
      } catch (...) {
        if (const std::exception_ptr error = group.fail(std::current_exception()))
          std::rethrow_exception(error);
      }
    });
    FAIL() << "was not noticed";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find("rank 1 on "), 0U) << text;
    EXPECT_NE(text.find("its images differ from those of rank 0 (lr: 0.2, not 0.1); "),
              std::string::npos)
        << text;
  }
}

TEST(Group, GradientsAndMomentsGoToTheirOwnersAndBack) {
  in_group(3, [](Group& group) {
    // Sizes that no slice fits: 7 + 12 + 1 = 20 = 7 + 7 + 6.
    std::vector<torch::Tensor> parameters{torch::arange(7.0F), torch::ones({3, 4}),
                                          torch::ones({1})};
    for (torch::Tensor& p : parameters) p.set_requires_grad(true);
    ParameterShards shards(parameters, {1, 2, 3}, group);
    int64_t own = 0;
    for (const torch::Tensor& p : shards.own()) own += p.numel();
    EXPECT_EQ(own, group.rank() == 2 ? 6 : 7);
    // Rank 1 has nothing to add.
    shards.begin_step(group.rank() != 1);
    torch::Tensor loss = torch::zeros({});
    for (const torch::Tensor& p : parameters) loss = loss + (p * (group.rank() + 1)).sum();
    loss.backward();
    shards.finish_gradients();
    for (const torch::Tensor& p : shards.own())
      EXPECT_TRUE(p.grad().eq(4).all().item<bool>()) << "1 of rank 0 and 3 of rank 2";
    for (const torch::Tensor& p : shards.own()) p.add_(group.rank() * 100);
    shards.share_parameters();
    EXPECT_EQ(parameters[0][6].item<float>(), 6);
    EXPECT_EQ(parameters[1][0][0].item<float>(), 101);
    EXPECT_EQ(parameters[2][0].item<float>(), 201);
    expect_moments_to_return(shards, parameters, group);
  });
}

TEST(Group, ManyBucketsOfPartsThatFitNothing) {
  for (const int64_t at_once : {1, 2, 7, 13}) {
    in_group(3, [&](Group& group) {
      std::vector<torch::Tensor> parameters{torch::arange(23.0F), torch::arange(20.0F).view({4, 5}),
                                            torch::ones({1})};
      for (torch::Tensor& p : parameters) p.set_requires_grad(true);
      ParameterShards shards(parameters, {}, group, GradientCompression::none, at_once);
      for (int step = 0; step < 2; ++step) {
        shards.begin_step(true);
        torch::Tensor loss = torch::zeros({});
        for (const torch::Tensor& p : parameters) loss = loss + (p * p).sum() * (group.rank() + 1);
        loss.backward();
        shards.finish_gradients();
        for (const torch::Tensor& p : shards.own()) {
          EXPECT_TRUE(torch::allclose(p.grad(), p * 12)) << at_once;
          p.sub_(p.grad() / 24);
        }
        shards.share_parameters();
      }
      EXPECT_TRUE(torch::allclose(parameters[0], torch::arange(23.0F) / 4));
      EXPECT_TRUE(torch::allclose(parameters[1].view({-1}), torch::arange(20.0F) / 4));
      expect_moments_to_return(shards, parameters, group);
    });
  }
}

TEST(Group, PostponedGradientsAreMadeForTheirBuckets) {
  torch::manual_seed(4);
  const torch::Tensor rows = torch::randn({9, 600});
  const torch::Tensor slope = torch::randn({9, 450});
  const torch::Tensor weight = torch::randn({450, 600});
  const torch::Tensor want = slope.t().mm(rows);
  for (const int64_t at_once : {int64_t{70'001}, ParameterShards::kBucket}) {
    in_group(3, [&](Group& group) {
      const torch::Tensor w = weight.clone().set_requires_grad(true);
      const torch::Tensor b = torch::zeros({450}).set_requires_grad(true);
      ParameterShards shards({w, b}, {}, group, GradientCompression::none, at_once);
      PostponedGradients postponed;
      for (const bool all : {true, false}) {
        postponed.clear();
        shards.begin_step(all || group.rank() != 1, &postponed);
        const int64_t first = group.rank() * int64_t{3};
        (dense(rows.narrow(0, first, 3), w, b, &postponed) * slope.narrow(0, first, 3))
            .sum()
            .backward();
        EXPECT_TRUE(postponed.has(w));
        shards.finish_gradients();
        const torch::Tensor of_others = slope.narrow(0, 3, 3).t().mm(rows.narrow(0, 3, 3));
        const torch::Tensor sum = all ? want : want - of_others;
        for (const torch::Tensor& p : shards.own()) {
          // Parts of the bias lie elsewhere.
          const int64_t at = p.data_ptr<float>() - w.data_ptr<float>();
          if (at < 0 || at >= w.numel()) continue;
          EXPECT_TRUE(
              torch::allclose(p.grad(), sum.reshape({-1}).narrow(0, at, p.numel()), 1e-4, 1e-4))
              << at_once;
        }
      }
    });
  }
}

TEST(Group, BatchNormIsThatOfTheWholeBatch) {
  torch::manual_seed(3);
  for (const bool maps : {false, true}) {
    const torch::Tensor all =
        maps ? torch::randn({5, 3, 2, 2}) * 4 + 9 : torch::randn({5, 3}) * 4 + 9;
    const torch::Tensor slope = torch::randn_like(all);
    const torch::Tensor weight = torch::rand({3});
    const torch::Tensor bias = torch::rand({3});
    struct Result {
      torch::Tensor y, of_x, of_weight, of_bias, mean, variance;
    };
    const auto run = [&](torch::Tensor x, const torch::Tensor& dy, const BatchPart& part) {
      torch::Tensor w = weight.clone().set_requires_grad(true);
      torch::Tensor b = bias.clone().set_requires_grad(true);
      x = x.clone().set_requires_grad(true);
      Result r;
      r.mean = torch::zeros({3});
      r.variance = torch::ones({3});
      r.y = part.group == nullptr
                ? torch::batch_norm(x, w, b, r.mean, r.variance, true, 0.1, 1e-5, true)
                : group_batch_norm(x, w, b, {r.mean, r.variance, 0.1}, 1e-5, part);
      (r.y * dy).sum().backward();
      r.of_x = x.grad();
      r.of_weight = w.grad();
      r.of_bias = b.grad();
      return r;
    };
    const Result want = run(all, slope, {});
    in_group(3, [&](Group& group) {
      // Two rows, three, and a row that stands for none.
      const int64_t first = group.rank() == 0 ? 0 : 2;
      const bool empty = group.rank() == 2;
      const int64_t rows = empty ? 1 : group.rank() == 0 ? 2 : 3;
      const Result got =
          run(empty ? torch::full_like(all.narrow(0, 0, 1), 1e3) : all.narrow(0, first, rows),
              slope.narrow(0, first, rows), {&group, first, 5, empty});
      const auto near = [](const torch::Tensor& a, const torch::Tensor& b) {
        return torch::allclose(a, b, 1e-4, 1e-5);
      };
      EXPECT_TRUE(near(got.mean, want.mean));
      EXPECT_TRUE(near(got.variance, want.variance));
      if (!empty) {
        EXPECT_TRUE(near(got.y, want.y.narrow(0, first, rows)));
        EXPECT_TRUE(near(got.of_x, want.of_x.narrow(0, first, rows)));
      }
      torch::Tensor sums = torch::stack({got.of_weight, got.of_bias});
      if (empty) sums.zero_();
      group.sum(sums);
      EXPECT_TRUE(near(sums[0], want.of_weight));
      EXPECT_TRUE(near(sums[1], want.of_bias));
    });
  }
}

class Place : public ::testing::Test {
 protected:
  void set(const char* name, const char* value) {
    ::setenv(name, value, 1);
    set_.emplace_back(name);
  }
  ~Place() override {
    for (const std::string& name : set_) ::unsetenv(name.c_str());
  }

 private:
  std::vector<std::string> set_;
};

TEST_F(Place, OfSlurmIsOnTheFirstHost) {
  set("SLURM_PROCID", "3");
  set("SLURM_NTASKS", "4");
  set("SLURM_JOB_ID", "1234");
  for (const auto& [list, host] :
       {std::pair("node[01-03,7],other", "node01"), std::pair("a1,b[2-3]", "a1"),
        std::pair("gpu[7].site,x", "gpu7.site"), std::pair("single", "single")}) {
    set("SLURM_JOB_NODELIST", list);
    EXPECT_EQ(group_place().host, host);
  }
  const GroupPlace place = group_place();
  EXPECT_EQ(place.rank, 3);
  EXPECT_EQ(place.size, 4);
  EXPECT_GE(place.port, 12'000);
  EXPECT_LT(place.port, 32'000);
  EXPECT_EQ(group_place("[fe80::1]:77").host, "fe80::1");
  EXPECT_EQ(group_place("[fe80::1]:77").port, 77);
  // torchrun within a job of Slurm.
  set("RANK", "0");
  set("WORLD_SIZE", "1");
  EXPECT_EQ(group_place().size, 1);
}

}  // namespace
}  // namespace graft
