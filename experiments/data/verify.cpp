#include "experiments/data/bytes.h"
#include "experiments/data/dataset.h"
#include "experiments/data/locate.h"
#include "experiments/data/sha256.h"
#include "kernels/check.h"

namespace pc::experiments {
namespace {

FileReport compare(const DataSource& source, const KnownFile& known, const std::filesystem::path& file) {
  const std::string name(known.name);
  FileReport report{name, file, FileState::ok, std::string(known.note)};
  const bool packed_alike = file.filename() == name + std::string(known.packed_suffix);
  if (packed_alike && sha256(read_file(file, known.bytes)) == known.packed_sha256) return report;
  const std::string found = sha256(read_unpacked(file, known.bytes));
  if (found == known.sha256) {
    report.detail += file.filename() == name ? ", unpacked" : ", packed differently";
    return report;
  }
  report.state = source.inspect ? FileState::unknown : FileState::differs;
  report.detail = "SHA-256 " + found + " unpacked, known is " + std::string(known.sha256);
  if (source.inspect) report.detail = source.inspect(known, file) + "; " + report.detail;
  return report;
}

}  // namespace

std::string_view state_name(FileState state) {
  switch (state) {
    case FileState::missing:
      return "missing";
    case FileState::ok:
      return "ok";
    case FileState::differs:
      return "differs";
    case FileState::unknown:
      return "unknown";
  }
  fail("data", "no such file state");
}

std::vector<FileReport> verify(const DataSource& source, const std::filesystem::path& root) {
  const std::filesystem::path folder = data_folder(source, root);
  std::vector<FileReport> reports;
  for (const KnownFile& known : source.files) {
    const std::string name(known.name);
    const std::optional<std::filesystem::path> file = find_packed(folder, name);
    if (!file) {
      reports.push_back({name, {}, FileState::missing, "not in " + folder.string() + " (plain, .gz or .xz)"});
      continue;
    }
    try {
      reports.push_back(compare(source, known, *file));
    } catch (const Error& error) {  // a file that cannot even be unpacked
      reports.push_back({name, *file, FileState::differs, error.what()});
    }
  }
  return reports;
}

}  // namespace pc::experiments
