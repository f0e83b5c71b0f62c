// Where the known files of a data set lie.
#pragma once

#include "experiments/data/dataset.h"

namespace pc::experiments {

/// Of root/FOLDER for each of the source's folders and of root itself: the one that holds most of its files.
std::filesystem::path data_folder(const DataSource& source, const std::filesystem::path& root);

/// Every known file, in the source's order. A missing one is an Error that says where we looked and for what.
std::vector<std::filesystem::path> locate(const DataSource& source, const DataRequest& request);

/// "train-images-idx3-ubyte.gz, ... in FOLDER".
std::string provenance(const std::vector<std::filesystem::path>& files);

}  // namespace pc::experiments
