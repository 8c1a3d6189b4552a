// The parts of the server that take apart what clients send.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <future>
#include <thread>

#include "base/fail.h"
#include "model/model_file.h"
#include "serve/access.h"
#include "serve/inference_queue.h"
#include "serve/metrics.h"
#include "serve/multipart.h"
#include "serve/request_target.h"
#include "serve/routes.h"
#include "serve/v2.h"
#include "support.h"

namespace graft::serving {
namespace {

using Path = std::vector<std::string>;

TEST(RequestTarget, IsTakenApart) {
  RequestTarget target;
  ASSERT_TRUE(parse_target("/v2/models/a%20b?x=1&y=%41+b&z", target));
  EXPECT_EQ(target.path, (Path{"v2", "models", "a b"}));
  EXPECT_EQ(target.query, (HttpFields{{"x", "1"}, {"y", "A b"}, {"z", ""}}));
  RequestTarget root;
  ASSERT_TRUE(parse_target("/", root));
  EXPECT_TRUE(root.path.empty());
  RequestTarget absolute;
  ASSERT_TRUE(parse_target("http://host:1/a/?", absolute));
  EXPECT_EQ(absolute.path, Path{"a"});
  for (const char* text : {"", "a", "*", "/..", "/a/../b", "/.", "/a//b", "/%", "/%4", "/%4g",
                           "/%00", "/a%0ab", "/a\x7f", "/%2e%2e", "/a#b", "/a?x=%0d"}) {
    RequestTarget refused;
    EXPECT_FALSE(parse_target(text, refused)) << text;
  }
  // An encoded slash is part of a name, and leads nowhere.
  RequestTarget slash;
  ASSERT_TRUE(parse_target("/v2/models/..%2f..%2fetc", slash));
  EXPECT_EQ(slash.path.back(), "../../etc");
}

TEST(Routes, AreFoundByTheirParts) {
  EXPECT_EQ(find_route({})->kind, RouteKind::file);
  EXPECT_EQ(find_route({"predict"})->method, "POST");
  EXPECT_TRUE(find_route({"healthz"})->open);
  EXPECT_FALSE(find_route({"models"})->open);
  EXPECT_EQ(find_route({"v2", "models", "m", "infer"})->kind, RouteKind::infer);
  EXPECT_EQ(find_route({"v2", "models", "m", "versions", "1", "infer"})->kind, RouteKind::infer);
  EXPECT_EQ(find_route({"v2", "models", "m", "versions", "1"})->kind, RouteKind::v2);
  for (const Path& path : {Path{"nothing"},
                           {"predict", "x"},
                           {"v2", "x"},
                           {"v2", "models"},
                           {"v2", "health"},
                           {"v2", "models", "m", "x"},
                           {"v2", "models", "m", "infer", "x"},
                           {"index.html"}})
    EXPECT_EQ(find_route(path), nullptr);
}

TEST(Form, PartsAreFound) {
  EXPECT_EQ(form_boundary("multipart/form-data; boundary=xyz"), "xyz");
  EXPECT_EQ(form_boundary("Multipart/Form-Data; charset=utf-8; BOUNDARY=\"a b\""), "a b");
  for (const char* type : {"", "image/jpeg", "multipart/form-data", "multipart/mixed; boundary=a",
                           "multipart/form-data; boundary=", "multipart/form-data; boundary=\"a"})
    EXPECT_FALSE(form_boundary(type)) << type;
  const std::string body =
      "before\r\n--xyz\r\nContent-Disposition: form-data; name=\"top\"\r\n\r\n3\r\n"
      "--xyz \r\ncontent-disposition: form-data; name=image; filename=\"a \\\"b\\\".jpg\"\r\n"
      "Content-Type: image/jpeg\r\n\r\n\r\n--xy\r\n--x\r\n--xyz\r\n\r\nno "
      "headers\r\n--xyz--\r\nafter";
  const std::vector<FormPart> parts = parse_form(body, "xyz", 3);
  ASSERT_EQ(parts.size(), 3U);
  EXPECT_EQ(parts[0].name, "top");
  EXPECT_FALSE(parts[0].file_name);
  EXPECT_EQ(parts[0].content, "3");
  EXPECT_EQ(parts[1].file_name, "a \"b\".jpg");
  EXPECT_EQ(parts[1].content, "\r\n--xy\r\n--x");
  EXPECT_EQ(parts[2].content, "no headers");
  EXPECT_ERROR(parse_form(body, "xyz", 2), ErrorKind::input, "more than 2 parts");
  EXPECT_ERROR(parse_form(body, "abc", 9), ErrorKind::input, "boundary");
  EXPECT_ERROR(parse_form("--xyz--", "xyz", 9), ErrorKind::input, "no parts");
  // Cut anywhere, it is refused or has fewer parts, and nothing is read behind its end.
  for (size_t length = 0; length < body.size(); ++length) {
    const std::string cut = body.substr(0, length);
    try {
      for (const FormPart& part : parse_form(cut, "xyz", 9)) {
        EXPECT_GE(part.content.data(), cut.data());
        EXPECT_LE(part.content.data() + part.content.size(), cut.data() + cut.size());
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::input);
    }
  }
}

HttpRequest with_headers(HttpFields headers) {
  HttpRequest request;
  request.headers = std::move(headers);
  return request;
}

TEST(Access, HostsAndOrigins) {
  const Access access{{"Photos.example"}, ""};
  for (const char* host : {"localhost", "localhost:8080", "127.0.0.1:1", "10.1.2.3", "[::1]:80",
                           "[fe80::1]", "photos.example", "PHOTOS.example.:443"})
    EXPECT_FALSE(bad_host(access, with_headers({{"host", host}}))) << host;
  for (const char* host :
       {"", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "photos.example:x",
        "photos.example:", "[::1", "[evil]", "a@localhost", "localhost:80:80", "999.1.1.1"})
    EXPECT_TRUE(bad_host(access, with_headers({{"host", host}}))) << host;
  EXPECT_TRUE(bad_host(access, with_headers({})));
  EXPECT_FALSE(bad_host({{"*"}, ""}, with_headers({{"host", "any.example"}})));
  const auto origin = [](const char* text) {
    return bad_origin(with_headers({{"host", "localhost:80"}, {"origin", text}}));
  };
  EXPECT_FALSE(bad_origin(with_headers({{"host", "localhost"}})));
  EXPECT_FALSE(origin("http://localhost:80"));
  EXPECT_FALSE(origin("https://LOCALHOST:80"));
  for (const char* other :
       {"http://localhost", "null", "http://evil.example", "", "http://localhost:80.evil.example"})
    EXPECT_TRUE(origin(other)) << other;
}

TEST(Access, Tokens) {
  const Access access{{}, "correct horse battery"};
  EXPECT_TRUE(has_token({{}, ""}, with_headers({})));
  EXPECT_TRUE(has_token(access, with_headers({{"authorization", "Bearer correct horse battery"}})));
  EXPECT_TRUE(has_token(access, with_headers({{"authorization", "bearer correct horse battery"}})));
  EXPECT_FALSE(has_token(access, with_headers({})));
  for (const char* value :
       {"", "Bearer", "Bearer ", "correct horse battery", "Basic correct horse battery",
        "Bearer correct horse batter", "Bearer correct horse battery "})
    EXPECT_FALSE(has_token(access, with_headers({{"authorization", value}}))) << value;
}

TEST(V2, PixelsAsJsonAndAsBytes) {
  const std::string json =
      R"({"id":"7","inputs":[{"name":"image","datatype":"UINT8","shape":[2,1,2,3],)"
      R"("data":[[[[1,2,3],[4,5,6]]],[[[7,8,9],[10,11,255]]]]}]})";
  const InferRequest nested = parse_infer(json, std::nullopt, 4);
  EXPECT_EQ(nested.id, "7");
  ASSERT_EQ(nested.images.size(), 2U);
  EXPECT_EQ(nested.images[1].pixels->width, 2);
  EXPECT_EQ(nested.images[1].pixels->height, 1);
  EXPECT_EQ(nested.images[1].pixels->pixels, (std::vector<uint8_t>{7, 8, 9, 10, 11, 255}));
  EXPECT_EQ(nested.outputs.size(), 3U);
  const std::string head = R"({"inputs":[{"name":"image","datatype":"UINT8","shape":[1,1,2,3],)"
                           R"("parameters":{"binary_data_size":6}}],"outputs":[{"name":"logits",)"
                           R"("parameters":{"binary_data":true}},{"name":"label"}]})";
  const std::string body = head + std::string("\x01\x02\x03\x04\x05\xff", 6);
  const InferRequest binary = parse_infer(body, head.size(), 4);
  ASSERT_EQ(binary.images.size(), 1U);
  EXPECT_EQ(binary.images[0].pixels->pixels, (std::vector<uint8_t>{1, 2, 3, 4, 5, 255}));
  ASSERT_EQ(binary.outputs.size(), 2U);
  EXPECT_TRUE(binary.outputs[0].binary);
  EXPECT_FALSE(binary.outputs[1].binary);
  EXPECT_ERROR(parse_infer(json, std::nullopt, 1), ErrorKind::input, "more than 1 images");
  EXPECT_ERROR(parse_infer(body, body.size() + 1, 4), ErrorKind::input, "the body has");
  for (size_t length = 0; length < body.size(); ++length)
    EXPECT_THROW(parse_infer(body.substr(0, length), head.size(), 4), Error);
}

TEST(V2, FilesBehindTheirLengths) {
  const std::string head =
      R"({"inputs":[{"name":"encoded","datatype":"BYTES","shape":[2],)"
      R"("parameters":{"binary_data_size":13}}],"parameters":{"binary_data_output":true}})";
  const std::string body = head + std::string("\x03\0\0\0abc\x02\0\0\0de", 13);
  const InferRequest request = parse_infer(body, head.size(), 4);
  ASSERT_EQ(request.images.size(), 2U);
  EXPECT_EQ(request.images[0].encoded, "abc");
  EXPECT_EQ(request.images[1].encoded, "de");
  EXPECT_TRUE(request.outputs[0].binary);
  std::string longer = body;
  longer[head.size()] = '\x7f';
  EXPECT_ERROR(parse_infer(longer, head.size(), 4), ErrorKind::input, "end early");
}

TEST(V2, WrongRequestsAreNamed) {
  const auto refused = [](const std::string& input, const char* why) {
    EXPECT_ERROR(parse_infer(R"({"inputs":[)" + input + "]}", std::nullopt, 4), ErrorKind::input,
                 why);
  };
  const std::string image = R"({"name":"image","datatype":"UINT8",)";
  refused("", "no input");
  refused(R"({"name":"x","datatype":"FP32","shape":[1]})", "neither image");
  refused(image + R"("shape":[1,2,3]})", "not [N, height, width, 3]");
  refused(image + R"("shape":[1,2,3,4],"data":[]})", "not [N, height, width, 3]");
  refused(image + R"("shape":[1,1,1,3],"data":[1,2]})", "2 values; its shape has 3");
  refused(image + R"("shape":[1,1,1,3],"data":[1,2,3,4]})", "more numbers");
  refused(image + R"("shape":[1,1,1,3],"data":[1,2,256]})", "256");
  refused(image + R"("shape":[1,1,1,3],"data":[1,2,0.5]})", "data");
  refused(image + R"("shape":[1,1,1,3],"data":[[[[[[1]]]]]]})", "too deep");
  refused(image + R"("shape":[1,1048576,1048576,3],"data":[]})", "more pixels");
  refused(image + R"("shape":[1,1,1,3]})", "data");
  refused(R"({"name":"encoded","datatype":"BYTES","shape":[1],"data":["x"]})", "binary data");
  EXPECT_ERROR(parse_infer("{", std::nullopt, 4), ErrorKind::input, "the request");
  EXPECT_ERROR(parse_infer("[]", std::nullopt, 4), ErrorKind::input, "the request");
}

TEST(V2, RepliesInBothForms) {
  InferRequest request;
  request.id = "a";
  request.outputs = {{"logits", true}, {"label", false}, {"probabilities", false}, {"label", true}};
  ImageResult result;
  result.prediction = to_prediction(std::vector<float>{1, 3});
  const InferReply reply = format_infer(request, "m", "v", {"cat", "dog"}, {result, result});
  ASSERT_TRUE(reply.json_length);
  const auto document = nlohmann::json::parse(reply.body.substr(0, *reply.json_length));
  EXPECT_EQ(document["id"], "a");
  EXPECT_EQ(document["outputs"][0]["shape"], (nlohmann::json{2, 2}));
  EXPECT_EQ(document["outputs"][0]["parameters"]["binary_data_size"], 16);
  EXPECT_EQ(document["outputs"][1]["data"], (nlohmann::json{"dog", "dog"}));
  EXPECT_EQ(document["outputs"][2]["data"].size(), 4U);
  const std::string bytes = reply.body.substr(*reply.json_length);
  ASSERT_EQ(bytes.size(), 16U + 14U);
  float second = 0;
  std::memcpy(&second, &bytes[4], sizeof second);
  EXPECT_EQ(second, 3);
  EXPECT_EQ(bytes.substr(20, 3), "dog");
}

TEST(ServeMetrics, ArePrometheusText) {
  Metrics metrics;
  metrics.count_request("predict", 200, 0.02);
  metrics.count_request("predict", 200, 20);
  metrics.count_images("a\"b\\c\nd", 3, 1);
  const std::string text = metrics.text({.connections = 5});
  for (const char* line :
       {"graft_requests_total{route=\"predict\",status=\"200\"} 2\n",
        "graft_request_seconds_bucket{route=\"predict\",le=\"0.025\"} 1\n",
        "graft_request_seconds_bucket{route=\"predict\",le=\"+Inf\"} 2\n",
        "graft_image_errors_total{model=\"a\\\"b\\\\c\\nd\"} 1\n", "graft_connections 5\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line;
}

// Requests whose client has gone, or whose time is over, leave the queue uncomputed; what is left
// is answered, as one batch while more is announced.
TEST(InferenceQueue, ComputesWhatIsStillWantedTogether) {
  const graft::testing::TemporaryFolder folder;
  const fs::path file = folder.path() / "model.safetensors";
  ModelFile model;
  model.metadata.network =
      with_head(cut_after(backbone("vgg-mini", 32, 32), "block2_pool"), "gap", 2);
  model.metadata.classes = {"cat", "dog"};
  model.metadata.provenance = {"random", "", "none needed"};
  model.tensors = graft::testing::make_tensors(model.metadata.network, 1);
  write_model(file, model);
  const auto served = std::make_shared<ServedModel>("m", file, ClassifierOptions{.threads = 1});
  InferenceQueue queue(std::chrono::seconds(20));
  std::mutex mutex;
  std::vector<int> given_up;
  std::promise<void> all;
  int left = 5;
  std::stop_source gone;
  gone.request_stop();
  queue.announce(5);
  const auto later = std::chrono::steady_clock::now() + std::chrono::hours(1);
  for (int i = 0; i < 5; ++i) {
    Inference each{served, std::vector<float>(served->classifier().input_elements(), 0.5F),
                   i == 1 ? gone.get_token() : std::stop_token(),
                   i == 3 ? std::chrono::steady_clock::now() - std::chrono::seconds(1) : later,
                   [&, i](const std::vector<float>& logits) {
                     const std::lock_guard lock(mutex);
                     if (logits.empty())
                       given_up.push_back(i);
                     else
                       EXPECT_EQ(logits.size(), 2U);
                     if (--left == 0) all.set_value();
                   }};
    queue.add(std::move(each));
  }
  ASSERT_EQ(all.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
  EXPECT_EQ(given_up, (std::vector<int>{1, 3}));
  QueueCounts counts = queue.counts();
  for (int i = 0; i < 500 && counts.images < 3; ++i) {  // counted after the answers
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    counts = queue.counts();
  }
  EXPECT_EQ(counts.images, 3U);
  EXPECT_EQ(counts.batches, 1U);
  EXPECT_EQ(counts.dropped, 2U);
}

}  // namespace
}  // namespace graft::serving
