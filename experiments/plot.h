// Line plots, drawn by gnuplot: it need not be there until one is asked for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace pc::experiments {

struct Series {
  enum class Mark : std::uint8_t {
    dots,
    line,
    theory  // a dashed line in the colour of the series before it
  };
  std::string title;         // empty: not in the key
  std::vector<double> x, y;  // where y is not finite nothing is drawn
  Mark mark = Mark::dots;
  int colour = 0;  // from 1; 0: the next one
};

struct Panel {
  std::string title, x_label, y_label;
  bool log_x = false, log_y = false;
  bool counts = false;     // x is one of few whole numbers
  bool key_right = false;  // where the key stands, left or right: at the top if log_y, else at the bottom
  std::vector<Series> series;
};

/// Throws where the file cannot be drawn: another kind than .svg or .png, no such folder, no gnuplot (with the package
/// to install).
void check_plot(const std::filesystem::path& file);

/// Draws the panels side by side, two in a row, into an .svg or .png file, written beside and renamed.
void write_plot(const std::filesystem::path& file, const std::vector<Panel>& panels);

}  // namespace pc::experiments
