#include "report/html.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>

#include "base/fail.h"
#include "base/file.h"
#include "report/page_files.h"

namespace graft::html {
namespace {

constexpr int kJpegQuality = 82;

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\'') {
      out += "&#39;";
    } else if (c < 0x80) {
      out += c < 0x20 && c != '\n' && c != '\t' ? ' ' : static_cast<char>(c);
    } else {
      // Length by the first byte; every following byte must be 10xxxxxx.
      const size_t length = c >= 0xF0 && c < 0xF5 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 0;
      bool good = length > 0 && c < 0xF5 && i + length <= text.size();
      for (size_t k = 1; good && k < length; ++k)
        good = (static_cast<unsigned char>(text[i + k]) & 0xC0) == 0x80;
      if (good) {
        out += text.substr(i, length);
        i += length - 1;
      } else {
        out += "\xEF\xBF\xBD";
      }
    }
  }
  return out;
}

std::string base64(std::span<const std::byte> bytes) {
  std::string out((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                     reinterpret_cast<const unsigned char*>(bytes.data()),
                                     static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(length));
  return out;
}

std::string shortened(std::string_view text, size_t most) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool begins = (static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80;
    if (begins && ++count > most) return std::string(text.substr(0, i)) + "…";
  }
  return std::string(text);
}

std::string shortened_middle(std::string_view text, size_t most) {
  std::vector<size_t> starts;  // of characters
  for (size_t i = 0; i < text.size(); ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80) starts.push_back(i);
  if (starts.size() <= most || most < 3) return shortened(text, most);
  const size_t end = (most - 1) * 2 / 5;  // beginnings say more
  return std::string(text.substr(0, starts[most - 1 - end])) + "…" +
         std::string(text.substr(starts[starts.size() - end]));
}

std::string_view style() { return page_files::kStyle; }

std::string_view script() { return page_files::kScript; }

std::string script_source() {
  constexpr size_t kBytes = 32;  // of SHA-256
  std::array<std::byte, kBytes> hash{};
  if (EVP_Digest(page_files::kScript.data(), page_files::kScript.size(),
                 reinterpret_cast<unsigned char*>(hash.data()), nullptr, EVP_sha256(),
                 nullptr) != 1)
    fail(ErrorKind::io, "SHA-256 cannot be computed by this OpenSSL");
  return "'sha256-" + base64(hash) + "'";
}

std::string page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
      "img-src data:; style-src 'unsafe-inline'; script-src {}\">\n"
      "<title>{}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{}</style>\n</head>\n"
      "<body>\n<main>\n{}\n</main>\n<script>{}</script>\n</body>\n</html>\n",
      script_source(), escape(title), style(), body, script());
}

std::string thumbnail(const Image& image, int side, std::string_view alternative) {
  const double scale =
      std::min(1.0, static_cast<double>(side) / std::max(image.width, image.height));
  const int width = std::max(1, static_cast<int>(image.width * scale));
  const int height = std::max(1, static_cast<int>(image.height * scale));
  return fmt::format(
      "<img src=\"data:image/jpeg;base64,{}\" width=\"{}\" height=\"{}\" alt=\"{}\">",
      base64(encode_jpeg(resize(image, width, height, Resampling::bilinear), kJpegQuality)), width,
      height, escape(alternative));
}

std::string copyable_path(const std::filesystem::path& path, std::string_view shown) {
  return fmt::format("<code class=\"path\" data-path=\"{}\">{}</code>", escape(printable(path)),
                     escape(shown.empty() ? printable(path.filename()) : std::string(shown)));
}

std::string figure(std::string_view images, std::string_view caption, std::string_view attributes) {
  return fmt::format(
      "<figure{}{}><div class=\"frame\">{}</div><figcaption>{}</figcaption></figure>\n",
      attributes.empty() ? "" : " ", attributes,
      images.empty() ? "<div class=\"tile bad\">no image</div>" : images, caption);
}

std::string scroll_area(std::string_view label, std::string_view content,
                        std::string_view classes) {
  return fmt::format(
      "<div class=\"scroll{}{}\" tabindex=\"0\" role=\"group\" aria-label=\"{}\">{}</div>\n",
      classes.empty() ? "" : " ", classes, escape(label), content);
}

std::string table(const Table& t) {
  std::string out = fmt::format("<table{}>\n<thead><tr>", t.sorts ? " class=\"sorts\"" : "");
  for (const Column& column : t.columns)
    out +=
        fmt::format("<th scope=\"col\"{}{}>{}</th>", column.numeric ? " class=\"number\"" : "",
                    column.largest_first ? " data-first=\"descending\"" : "", escape(column.name));
  out += "</tr></thead>\n";
  const auto add = [&](std::string_view tag, const std::vector<Row>& rows) {
    out += fmt::format("<{}>\n", tag);
    for (const Row& row : rows) {
      out += row.attributes.empty() ? "<tr>" : "<tr " + row.attributes + ">";
      for (size_t i = 0; i < row.cells.size(); ++i)
        out += (i < t.columns.size() && t.columns[i].numeric ? "<td class=\"number\">" : "<td>") +
               row.cells[i] + "</td>";
      out += "</tr>\n";
    }
    out += fmt::format("</{}>", tag);
  };
  add("tbody", t.rows);
  if (!t.footer.empty()) add("tfoot", t.footer);
  return scroll_area(t.label, out + "</table>", t.rows.size() > kLong ? "long" : "");
}

std::string table(const std::vector<std::string>& header,
                  const std::vector<std::vector<std::string>>& rows, bool numeric) {
  std::string out = fmt::format("<table{}>\n<thead><tr>", numeric ? " class=\"n\"" : "");
  for (const std::string& cell : header) out += "<th scope=\"col\">" + cell + "</th>";
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += "<td>" + cell + "</td>";
    out += "</tr>\n";
  }
  return scroll_area("table", out + "</tbody></table>");
}

std::string facts(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string out = "<table class=\"facts\">\n";
  for (const auto& [name, text] : rows)
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), text);
  return out + "</table>\n";
}

std::string tile(std::string_view value, std::string_view what) {
  return fmt::format("<div class=\"tile\"><b>{}</b><span>{}</span></div>\n", escape(value),
                     escape(what));
}

std::string section(std::string_view id, std::string_view heading, std::string_view content) {
  return fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n{}</section>\n", id, escape(heading),
                     content);
}

}  // namespace graft::html
