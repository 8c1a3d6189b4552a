#include "report/html.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>

#include "graft/image.h"

namespace graft::html {
namespace {

constexpr int kJpegQuality = 82;

constexpr std::string_view kStyle = R"css(
:root{color-scheme:light dark;--fg:#1c1e21;--bg:#fff;--dim:#5f6670;--line:#d9dce1;--box:#f5f6f8;
--accent:#0072b2;--bad:#b3400f}
@media(prefers-color-scheme:dark){:root{--fg:#e4e6ea;--bg:#16181b;--dim:#9aa1ab;--line:#363a41;
--box:#1f2226;--accent:#56b4e9;--bad:#f0925f}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:1rem 1.1rem 4rem;background:var(--bg);color:var(--fg);
font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.6rem 0 .2rem}
h2{font-size:1.2rem;margin:2.4rem 0 .6rem;padding-top:.5rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
p{max-width:46rem}.dim{color:var(--dim)}.bad{color:var(--bad)}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top;
overflow-wrap:normal}
table.n th+th,table.n td+td{text-align:right}
pre,code{font:.85rem/1.45 ui-monospace,monospace}
pre{background:var(--box);padding:.7rem .9rem;overflow-x:auto;border-radius:6px}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin:.8rem 0}
.tile{background:var(--box);border-radius:8px;padding:.5rem .9rem;min-width:7.5rem}
.tile b{display:block;font-size:1.45rem;font-variant-numeric:tabular-nums}
.tile span{color:var(--dim);font-size:.85rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.8rem}
.grid.pairs{grid-template-columns:repeat(auto-fill,minmax(12rem,1fr))}
figure{margin:0;min-width:0}figure img{width:100%;height:auto;border-radius:4px;display:block}
figcaption{font-size:.8rem;line-height:1.35;margin-top:.25rem}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:2px}
.groups{display:flex;flex-wrap:wrap;gap:.7rem;margin:.6rem 0}
.row{display:flex;flex-wrap:wrap;gap:.4rem;align-items:flex-start;background:var(--box);
padding:.4rem;border-radius:6px}
.row figure{width:7.6rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(26rem,100%),1fr));gap:1rem}
svg,img{max-width:100%;height:auto}
nav a{margin-right:.9rem;display:inline-block}a{color:var(--accent)}
@media print{body{max-width:none;padding:0}nav{display:none}h2{break-after:avoid}
figure,table,svg{break-inside:avoid}}
)css";

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

std::string page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
      "img-src data:; style-src 'unsafe-inline'\">\n"
      "<title>{}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{}</style>\n</head>\n"
      "<body>\n{}\n</body>\n</html>\n",
      escape(title), kStyle, body);
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

std::string image(const Image& image, std::string_view alternative) {
  return fmt::format("<img src=\"data:image/png;base64,{}\" width=\"{}\" height=\"{}\" alt=\"{}\">",
                     base64(encode_png(image)), image.width, image.height, escape(alternative));
}

std::string table(const std::vector<std::string>& header,
                  const std::vector<std::vector<std::string>>& rows, bool numeric) {
  std::string out = fmt::format("<div class=\"scroll\" tabindex=\"0\"><table{}>\n<thead><tr>",
                                numeric ? " class=\"n\"" : "");
  for (const std::string& cell : header) out += "<th scope=\"col\">" + cell + "</th>";
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += "<td>" + cell + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string section(std::string_view id, std::string_view heading, std::string_view content) {
  return fmt::format("<section id=\"{}\">\n<h2>{}</h2>\n{}</section>\n", id, escape(heading),
                     content);
}

}  // namespace graft::html
