// What a server takes apart: the target of a request, a form, a request of the Open Inference
// Protocol. The first byte chooses; what is found lies within the input.
#include <string>

#include "fuzz/fuzz.h"
#include "serve/access.h"
#include "serve/multipart.h"
#include "serve/request_target.h"
#include "serve/routes.h"
#include "serve/v2.h"

namespace {

using namespace graft;

bool within(std::string_view part, std::string_view whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void read_target(std::string_view text) {
  serving::RequestTarget target;
  if (!serving::parse_target(text, target)) return;
  for (const std::string& part : target.path)
    fuzz::require(!part.empty() && part != ".." && part.find('\0') == std::string::npos);
  static_cast<void>(serving::find_route(target.path));
}

void read_form(std::string_view text) {
  const size_t line = text.find('\n');
  const std::optional<std::string> boundary = serving::form_boundary(text.substr(0, line));
  if (line == std::string_view::npos || !boundary) return;
  const std::string_view body = text.substr(line + 1);
  for (const serving::FormPart& part : serving::parse_form(body, *boundary, 8))
    fuzz::require(within(part.content, body));
}

void read_infer(std::string_view text) {
  if (text.size() < 2) return;
  const size_t length =
      static_cast<unsigned char>(text[0]) * 256U + static_cast<unsigned char>(text[1]);
  const std::string_view body = text.substr(2);
  const serving::InferRequest request =
      serving::parse_infer(body, length == 0 ? std::nullopt : std::optional<size_t>(length), 8);
  fuzz::require(!request.images.empty() && request.images.size() <= 8);
  for (const serving::SentImage& image : request.images) {
    fuzz::require(within(image.encoded, body));
    if (image.pixels) check_image(*image.pixels);
  }
}

void read_host(std::string_view text) {
  serving::HttpRequest request;
  request.headers = {{"host", std::string(text)},
                     {"origin", std::string(text)},
                     {"authorization", std::string(text)}};
  static_cast<void>(serving::bad_host({{"name"}, ""}, request));
  static_cast<void>(serving::bad_origin(request));
  fuzz::require(!serving::has_token({{}, "a token that is not there"}, request) ||
                text.find("a token that is not there") != std::string_view::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text = fuzz::text(data + 1, size - 1);
  return fuzz::expect_typed_errors([&] {
    switch (data[0] % 4) {
      case 0:
        return read_target(text);
      case 1:
        return read_form(text);
      case 2:
        return read_infer(text);
      default:
        return read_host(text);
    }
  });
}
