// Line plots, drawn by gnuplot: it need not be there until one is asked for.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace pc::experiments {

struct Series {
  std::string title;  // empty: not in the key
  std::vector<double> x, y;
  bool dots = true;  // else a line in the colour of the dots before it: what theory says
};

struct Panel {
  std::string title, x_label, y_label;
  bool log_x = false, log_y = false;
  bool counts = false;  // x is a whole number
  std::vector<Series> series;
};

/// Throws where the file cannot be drawn: another kind than .svg or .png, no such folder, no gnuplot (with the package
/// to install).
void check_plot(const std::filesystem::path& file);

/// Draws the panels side by side, two in a row, into an .svg or .png file, written beside and renamed.
void write_plot(const std::filesystem::path& file, const std::vector<Panel>& panels);

}  // namespace pc::experiments
