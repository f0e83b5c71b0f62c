#include "experiments/plot.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "kernels/check.h"
#include "pc/replacement.h"

namespace pc::experiments {
namespace {

/// In single quotes, in which gnuplot reads everything as it stands.
std::string in_single_quotes(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("''") : std::string(1, c);
  return out + "'";
}

std::string terminal_of(const std::filesystem::path& file) {
  if (file.extension() == ".svg") return "svg";
  if (file.extension() == ".png") return "pngcairo";
  fail("plot", file.string(), ": a plot is an .svg or a .png file");
}

constexpr const char* kMarks[] = {"with points pt 7 ps 0.7", "with lines lw 1.5", "with lines lw 1.5 dt 2"};

std::string data_block(std::size_t panel, std::size_t series) { return fmt::format("$data_{}_{}", panel, series); }

/// What gnuplot is told, to draw for this terminal.
std::string plot_script(const std::string& terminal, const std::filesystem::path& file,
                        const std::vector<Panel>& panels) {
  const std::size_t columns = std::min<std::size_t>(panels.size(), 2), rows = (panels.size() + 1) / 2;
  std::string script;
  for (std::size_t p = 0; p < panels.size(); ++p) {
    for (std::size_t s = 0; s < panels[p].series.size(); ++s) {
      const Series& series = panels[p].series[s];
      script += data_block(p, s) + " << END\n";
      for (std::size_t i = 0; i < series.x.size(); ++i) {
        if (std::isfinite(series.y[i])) script += fmt::format("{:.17g} {:.17g}\n", series.x[i], series.y[i]);
      }
      script += "END\n";
    }
  }
  script += fmt::format("set terminal {} size {},{} noenhanced\n", terminal, 520 * columns, 380 * rows);
  script += fmt::format("set output {}\nset multiplot layout {},{}\n", in_single_quotes(file.string()), rows, columns);
  for (std::size_t p = 0; p < panels.size(); ++p) {
    const Panel& panel = panels[p];
    script += fmt::format("set title {}\nset xlabel {}\nset ylabel {}\n", in_single_quotes(panel.title),
                          in_single_quotes(panel.x_label), in_single_quotes(panel.y_label));
    script += fmt::format("unset logscale\n{}{}set format y \"{}\"\nset key {} {} reverse Left\n{}",
                          panel.log_x ? "set logscale x\n" : "", panel.log_y ? "set logscale y\n" : "",
                          panel.log_y ? "%.0e" : "%g", panel.key_right ? "right" : "left",
                          panel.log_y ? "top" : "bottom", panel.counts ? "set xtics 1\n" : "set xtics autofreq\n");
    std::string lines;
    int colour = 0;
    for (std::size_t s = 0; s < panel.series.size(); ++s) {
      const Series& series = panel.series[s];
      colour += series.mark != Series::Mark::theory || s == 0 ? 1 : 0;
      lines += fmt::format("{}{} using 1:2 {} lc {} {}", s == 0 ? "" : ", ", data_block(p, s),
                           kMarks[static_cast<std::size_t>(series.mark)], series.colour > 0 ? series.colour : colour,
                           series.title.empty() ? "notitle" : "title " + in_single_quotes(series.title));
    }
    script += "plot " + lines + "\n";
  }
  return script + "unset multiplot\nset output\n";
}

}  // namespace

void check_plot(const std::filesystem::path& file) {
  static_cast<void>(terminal_of(file));
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  PC_CHECK(std::filesystem::is_directory(folder), "plot", "there is no folder ", folder.string(), " to put ",
           file.filename().string(), " into");
  PC_CHECK(std::system("command -v gnuplot >/dev/null 2>&1") == 0, "plot", "drawing ", file.string(),
           " needs gnuplot; on Debian: apt-get install gnuplot-nox");
}

void write_plot(const std::filesystem::path& file, const std::vector<Panel>& panels) {
  check_plot(file);
  PC_CHECK(!panels.empty(), "plot", "there is nothing to draw in ", file.string());
  Replacement replacement(file);
  const std::string script = plot_script(terminal_of(file), replacement.path(), panels);
  std::FILE* gnuplot = popen("gnuplot", "w");
  PC_CHECK(gnuplot != nullptr, "plot", "gnuplot cannot be started");
  const bool written = std::fwrite(script.data(), 1, script.size(), gnuplot) == script.size();
  const bool drawn = pclose(gnuplot) == 0 && written && std::filesystem::exists(replacement.path());
  PC_CHECK(drawn, "plot", "gnuplot could not draw ", file.string(), "; may its folder be written to?");
  replacement.take_place();
}

}  // namespace pc::experiments
