#include "pc/h5.h"

#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>

namespace pc {
namespace {

namespace fs = std::filesystem;

static_assert(std::is_same_v<hid_t, std::int64_t> && std::is_same_v<herr_t, int>, "H5Id spells these types out");
static_assert(std::endian::native == std::endian::little, "files are little-endian and are checked bit for bit");

constexpr std::size_t kSealBytes = 512;              // the smallest user block that HDF5 has
constexpr std::size_t kCompressFrom = 64 << 10;      // bytes; below, a chunk index costs more than gzip saves
constexpr std::size_t kChunkBytes = 1 << 20;         // what HDF5 caches by default
constexpr std::uint64_t kLargestChunk = 1ULL << 30;  // of a file from elsewhere
constexpr std::uint64_t kGzipRatio = 1100;           // gzip's best is 1032 : 1
constexpr std::string_view kSealMagic = "pc sealed HDF5\n";

// --- errors ---

/// HDF5 prints its errors by itself, per thread, unless told not to.
void silence() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

/// The innermost message of HDF5's error stack: the cause.
std::string cause() {
  std::string text;
  const auto first = [](unsigned n, const H5E_error2_t* error, void* out) noexcept -> herr_t {
    if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first, &text);
  H5Eclear2(H5E_DEFAULT);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text.empty() ? "HDF5 gives no reason" : "HDF5: " + text;
}

std::string system_error(int error) { return std::generic_category().message(error); }

template <class... Parts>
[[noreturn]] void fail_read(const fs::path& path, const Parts&... parts) {
  fail("h5", path.string(), ": ", parts...);
}

/// A run that cannot keep its results has failed; the user's input was fine.
template <class... Parts>
[[noreturn]] void fail_write(const fs::path& path, const Parts&... parts) {
  fail_run("h5", "cannot write ", path.string(), ": ", parts...);
}

/// "[3, 4]"
template <class Dims>
std::string text_of(const Dims& dims) {
  std::string out;
  for (const auto dim : dims) out += (out.empty() ? "" : ", ") + std::to_string(dim);
  return "[" + out + "]";
}

// --- files ---

struct Descriptor {
  int fd;
  explicit Descriptor(int f) : fd(f) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

/// Up to `bytes` of them from `offset`; fewer only at the end of the file, -1 on an error.
std::int64_t read_at(int fd, std::uint64_t offset, char* out, std::size_t bytes) {
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t got = ::pread(fd, out + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return static_cast<std::int64_t>(done);
}

using Seal = std::array<char, kSealBytes>;

/// Goes on with a hash. Each step is a bijection of the hash and of the word, so that damage within one word never goes
/// unseen. All parts but the last are whole words.
std::uint64_t hash_on(std::uint64_t hash, const char* data, std::size_t bytes) {
  const auto step = [&hash](const char* from, std::size_t n) {
    std::uint64_t word = 0;
    std::memcpy(&word, from, n);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 32;
  };
  std::size_t at = 0;
  for (; at + sizeof hash <= bytes; at += sizeof hash) step(data + at, sizeof hash);
  if (at < bytes) step(data + at, bytes - at);
  return hash;
}

/// The seal of a file of `length` bytes, of which those after the seal have this hash.
Seal seal_of(std::uint64_t length, std::uint64_t hash) {
  std::ostringstream text;
  text << kSealMagic << "bytes " << length << "\nchecksum " << std::hex << hash << '\n';
  Seal seal{};
  const std::string lines = text.str();
  std::copy(lines.begin(), lines.end(), seal.begin());
  return seal;
}

Seal seal_of(const fs::path& path, int fd) {
  std::vector<char> buffer(kChunkBytes);
  std::uint64_t length = kSealBytes, hash = 0;
  for (;;) {
    const std::int64_t got = read_at(fd, length, buffer.data(), buffer.size());
    if (got < 0) fail_read(path, "cannot be read: ", system_error(errno));
    hash = hash_on(hash, buffer.data(), static_cast<std::size_t>(got));
    length += static_cast<std::uint64_t>(got);
    if (got < std::ssize(buffer)) return seal_of(length, hash);
  }
}

/// HDF5 looks for its superblock at 0, 512, 1024, 2048 ...
bool has_superblock(int fd, std::uint64_t length) {
  static constexpr char kSignature[] = "\x89HDF\r\n\x1a\n";
  for (std::uint64_t offset = 0; offset < length; offset = offset == 0 ? 512 : offset * 2) {
    std::array<char, 8> start{};
    if (read_at(fd, offset, start.data(), start.size()) != std::ssize(start)) return false;
    if (std::memcmp(start.data(), kSignature, start.size()) == 0) return true;
  }
  return false;
}

/// Throws unless this is a whole HDF5 file as far as one can tell without HDF5. Returns its length.
std::uint64_t check_file(const fs::path& path) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (fs::is_directory(status)) fail_read(path, "is a folder; name an HDF5 file");
  if (fs::exists(status) && !fs::is_regular_file(status)) fail_read(path, "is a device or pipe; name an HDF5 file");
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.fd < 0) fail_read(path, "cannot be opened: ", system_error(errno));
  const off_t length = ::lseek(file.fd, 0, SEEK_END);
  if (length < 0) fail_read(path, "cannot be read: ", system_error(errno));

  Seal block{};
  const std::int64_t got = read_at(file.fd, 0, block.data(), block.size());
  if (got < 0) fail_read(path, "cannot be read: ", system_error(errno));
  const bool sealed = std::string_view(block.data(), kSealMagic.size()) == kSealMagic;
  if (sealed && (got < std::ssize(block) || block != seal_of(path, file.fd))) {
    fail_read(path, "is damaged: its ", length,
              " bytes do not match its checksum (cut off, or changed by something else); use another copy");
  }
  constexpr std::string_view kBegin = "\x89HDF";
  const bool bare = std::string_view(block.data(), kBegin.size()) == kBegin;
  const bool zeros = std::all_of(block.begin(), block.end(), [](char c) { return c == 0; });
  if (!sealed && !bare && !zeros && has_superblock(file.fd, static_cast<std::uint64_t>(length))) {
    fail_read(path,
              "begins neither with its checksum nor as HDF5 does: it is damaged, use another copy (what another "
              "program has put before HDF5's data, overwrite with zeros)");
  }
  if (!has_superblock(file.fd, static_cast<std::uint64_t>(length))) {
    fail_read(path, "is not an HDF5 file, or one cut off (", length, " bytes)");
  }
  return static_cast<std::uint64_t>(length);
}

/// Fills an existing file and waits until all is on disk.
void write_file(const fs::path& path, const fs::path& place, const char* data, std::size_t bytes) {
  const Descriptor file(::open(place.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  if (file.fd < 0) fail_write(path, system_error(errno));
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t wrote = ::write(file.fd, data + done, bytes - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) fail_write(path, system_error(errno), " after ", done, " of ", bytes, " bytes");
    done += static_cast<std::size_t>(wrote);
  }
  if (::fsync(file.fd) != 0) fail_write(path, system_error(errno));
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

/// Makes a rename last. Some file systems cannot do this to a folder, and then need not.
void sync_folder(const fs::path& folder) {
  const Descriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (file.fd < 0) return;
  if (::fsync(file.fd) != 0 && errno == EIO) fail_write(folder, system_error(errno));
}

// --- what HDF5 calls things ---

hid_t native(H5Type type) {
  switch (type) {
    case H5Type::f32:
      return H5T_NATIVE_FLOAT;
    case H5Type::f64:
      return H5T_NATIVE_DOUBLE;
    case H5Type::i32:
      return H5T_NATIVE_INT32;
    case H5Type::i64:
      return H5T_NATIVE_INT64;
    case H5Type::u8:
      break;
  }
  return H5T_NATIVE_UINT8;
}

/// The same in either byte order, which HDF5 converts.
std::array<hid_t, 2> stored(H5Type type) {
  switch (type) {
    case H5Type::f32:
      return {H5T_IEEE_F32LE, H5T_IEEE_F32BE};
    case H5Type::f64:
      return {H5T_IEEE_F64LE, H5T_IEEE_F64BE};
    case H5Type::i32:
      return {H5T_STD_I32LE, H5T_STD_I32BE};
    case H5Type::i64:
      return {H5T_STD_I64LE, H5T_STD_I64BE};
    case H5Type::u8:
      break;
  }
  return {H5T_STD_U8LE, H5T_STD_U8BE};
}

constexpr std::array kTypes = {H5Type::f32, H5Type::f64, H5Type::i32, H5Type::i64, H5Type::u8};

/// UTF-8 of `bytes` bytes, or of any length with H5T_VARIABLE.
H5Id string_type(std::size_t bytes) {
  H5Id type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), bytes);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  H5Tset_strpad(type.get(), bytes == H5T_VARIABLE ? H5T_STR_NULLTERM : H5T_STR_NULLPAD);
  return type;
}

H5Id space_of(const H5Dims& dims) {
  if (dims.empty()) return {H5Screate(H5S_SCALAR), H5Sclose};
  const std::vector<hsize_t> extents(dims.begin(), dims.end());
  return {H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr), H5Sclose};
}

/// Bytes of an array; false when they do not fit into 63 bits.
bool bytes_of(const H5Dims& dims, H5Type type, std::uint64_t& bytes) {
  auto product = static_cast<std::int64_t>(size_of(type));
  for (const std::int64_t dim : dims) {
    if (dim < 0 || __builtin_mul_overflow(product, dim, &product)) return false;
  }
  bytes = static_cast<std::uint64_t>(product);
  return true;
}

// --- writing ---

/// Parts of about a mebibyte: whole rows while they fit.
std::vector<hsize_t> chunk_of(const H5Dims& dims, H5Type type) {
  std::vector<hsize_t> chunk(dims.begin(), dims.end());
  auto bytes = static_cast<std::uint64_t>(size_of(type));
  for (const hsize_t dim : chunk) bytes *= dim;
  for (hsize_t& dim : chunk) {
    const std::uint64_t each = bytes / dim;
    dim = std::clamp<std::uint64_t>(kChunkBytes / each, 1, dim);
    bytes = each * dim;
  }
  return chunk;
}

H5Id dataset_properties(const H5Dims& dims, H5Type type, bool compress) {
  H5Id properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(properties.get(), false);  // the same numbers make the same file
  std::uint64_t bytes = 0;
  if (compress && bytes_of(dims, type, bytes) && bytes > kCompressFrom && H5Zfilter_avail(H5Z_FILTER_DEFLATE) > 0) {
    const std::vector<hsize_t> chunk = chunk_of(dims, type);
    H5Pset_chunk(properties.get(), static_cast<int>(chunk.size()), chunk.data());
    H5Pset_shuffle(properties.get());
    H5Pset_deflate(properties.get(), 1);
    H5Pset_fill_time(properties.get(), H5D_FILL_TIME_ALLOC);  // nor does chance get into chunks that stick out
  }
  return properties;
}

H5Id link_properties() {
  H5Id properties(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(properties.get(), 1);
  H5Pset_char_encoding(properties.get(), H5T_CSET_UTF8);
  return properties;
}

bool write_attribute(hid_t owner, const std::string& name, hid_t file_type, hid_t memory_type, const void* value) {
  const H5Id space(H5Screate(H5S_SCALAR), H5Sclose);
  H5Id attribute(H5Acreate2(owner, name.c_str(), file_type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  return !attribute.empty() && H5Awrite(attribute.get(), memory_type, value) >= 0 && attribute.close();
}

/// Of variable length, because h5py gives those as str; their limit of 64 KiB does not hold for them either.
bool write_attribute(hid_t owner, const std::string& name, const std::string& value) {
  const H5Id type = string_type(H5T_VARIABLE);
  const char* text = value.c_str();
  return write_attribute(owner, name, type.get(), type.get(), &text);
}

bool is_path(const std::string& name) {
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view part(name.data() + begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return name.find('\0') == std::string::npos;
}

/// One dataset, closed with its description when this returns.
void write_dataset(const fs::path& path, hid_t file, const std::string& name, hid_t file_type, hid_t memory_type,
                   const H5Dims& dims, hid_t properties, const void* data, const std::string& description) {
  PC_CHECK(is_path(name), "h5", "'", name, "' cannot name a dataset of ", path.string(),
           ": its parts must not be empty, '.' or '..'");
  PC_CHECK(!description.empty(), "h5", "dataset ", name, " of ", path.string(), " needs a description");
  const H5Id links = link_properties();
  const H5Id space = space_of(dims);
  H5Id set(H5Dcreate2(file, name.c_str(), file_type, space.get(), links.get(), properties, H5P_DEFAULT), H5Dclose);
  if (set.empty()) fail_write(path, "dataset ", name, " cannot be made; is its name taken? (", cause(), ")");
  const bool written = std::find(dims.begin(), dims.end(), 0) != dims.end() ||
                       H5Dwrite(set.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
  if (!written || !write_attribute(set.get(), "description", description) || !set.close()) {
    fail_write(path, "dataset ", name, " cannot be stored; is there memory for it? (", cause(), ")");
  }
}

// --- reading ---

/// The one string that a dataset or an attribute holds; read(memory_type, buffer) fetches it.
template <class Read>
bool read_string(hid_t type, hid_t space, std::uint64_t limit, std::string& text, Read&& read) {
  if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) return false;
  if (H5Tis_variable_str(type) > 0) {
    char* value = nullptr;
    if (read(type, &value) < 0) return false;
    if (value != nullptr) text = value;
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, &value);
    return true;
  }
  const std::size_t bytes = H5Tget_size(type);
  if (bytes > limit) return false;  // more than the file is long
  text.assign(bytes, '\0');
  if (read(type, text.data()) < 0) return false;
  text.resize(std::min(text.find('\0'), text.size()));
  return true;
}

bool read_string_attribute(hid_t attribute, std::uint64_t limit, std::string& text) {
  const H5Id type(H5Aget_type(attribute), H5Tclose), space(H5Aget_space(attribute), H5Sclose);
  return read_string(type.get(), space.get(), limit, text,
                     [&](hid_t memory, void* out) { return H5Aread(attribute, memory, out); });
}

#if H5_VERSION_GE(1, 12, 0)
using ObjectInfo = H5O_info2_t;
herr_t visit(hid_t file, H5O_iterate2_t op, void* data) {
  return H5Ovisit3(file, H5_INDEX_NAME, H5_ITER_NATIVE, op, data, H5O_INFO_BASIC);
}
#else
using ObjectInfo = H5O_info_t;
herr_t visit(hid_t file, H5O_iterate_t op, void* data) {
  return H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_NATIVE, op, data, H5O_INFO_BASIC);
}
#endif

/// Every dataset that hard links reach, so that no name of ours leads into another file.
std::vector<std::string> dataset_names(const fs::path& path, hid_t file) {
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* name, const ObjectInfo* info, void* out) noexcept -> herr_t {
    if (info->type == H5O_TYPE_DATASET) static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  if (visit(file, collect, &names) < 0) fail_read(path, "its contents cannot be listed, it is damaged: ", cause());
  std::sort(names.begin(), names.end());
  return names;
}

/// The most bytes that this dataset of a file of `length` bytes can really have; throws when they lie in other files or
/// in absurd chunks.
std::uint64_t most_bytes(const fs::path& path, std::uint64_t length, hid_t set, const std::string& name) {
  const H5Id properties(H5Dget_create_plist(set), H5Pclose);
  if (properties.empty()) fail_read(path, "dataset ", name, " is damaged: ", cause());
  const H5D_layout_t layout = H5Pget_layout(properties.get());
  if (layout < 0) fail_read(path, "dataset ", name, " is damaged: ", cause());
  if (layout == H5D_VIRTUAL || H5Pget_external_count(properties.get()) != 0) {
    fail_read(path, "dataset ", name, " lies in other files; copy it into this one, with h5repack for example");
  }
  if (layout == H5D_CHUNKED) {
    std::array<hsize_t, H5S_MAX_RANK> chunk{};
    const int rank = H5Pget_chunk(properties.get(), H5S_MAX_RANK, chunk.data());
    const H5Id type(H5Dget_type(set), H5Tclose);
    std::uint64_t bytes = H5Tget_size(type.get());
    for (int axis = 0; axis < rank && bytes <= kLargestChunk; ++axis) {
      if (__builtin_mul_overflow(bytes, chunk[static_cast<std::size_t>(axis)], &bytes)) bytes = kLargestChunk + 1;
    }
    if (rank < 0 || bytes > kLargestChunk) fail_read(path, "dataset ", name, " has chunks of over a gibibyte");
  }
  const std::uint64_t held = std::min<std::uint64_t>(H5Dget_storage_size(set), length);
  return layout == H5D_CHUNKED && H5Pget_nfilters(properties.get()) > 0 ? held * kGzipRatio : held;
}

H5Dims dims_of(const fs::path& path, hid_t set, const std::string& name) {
  const H5Id space(H5Dget_space(set), H5Sclose);
  std::array<hsize_t, H5S_MAX_RANK> extents{};
  const int rank = space.empty() || H5Sget_simple_extent_type(space.get()) == H5S_NULL
                       ? -1
                       : H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
  if (rank < 0) fail_read(path, "dataset ", name, " has no extents: ", cause());
  H5Dims dims;
  for (int axis = 0; axis < rank; ++axis) {
    const hsize_t extent = extents[static_cast<std::size_t>(axis)];
    if (extent > hsize_t{std::numeric_limits<std::int64_t>::max()}) {
      fail_read(path, "dataset ", name, " claims the extent ", extent);
    }
    dims.push_back(static_cast<std::int64_t>(extent));
  }
  return dims;
}

H5Type type_of(const fs::path& path, hid_t set, const std::string& name) {
  const H5Id type(H5Dget_type(set), H5Tclose);
  if (type.empty()) fail_read(path, "dataset ", name, " is damaged: ", cause());
  for (const H5Type known : kTypes) {
    for (const hid_t form : stored(known)) {
      if (H5Tequal(type.get(), form) > 0) return known;
    }
  }
  fail_read(path, "dataset ", name, " has a type that is not read here; store it as float32, float64, int32, int64 ",
            "or uint8");
}

/// Reads an attribute that is one number of this class.
template <class T>
T number(const fs::path& path, hid_t attribute, const std::string& name, H5T_class_t wanted, hid_t memory_type) {
  const H5Id type(H5Aget_type(attribute), H5Tclose), space(H5Aget_space(attribute), H5Sclose);
  T value{};
  if (H5Tget_class(type.get()) != wanted || H5Sget_simple_extent_npoints(space.get()) != 1 ||
      H5Aread(attribute, memory_type, &value) < 0) {
    fail_read(path, "attribute ", name, " is not ", wanted == H5T_FLOAT ? "a real number" : "an integer");
  }
  return value;
}

}  // namespace

// --- H5Writer ---

H5Writer::H5Writer(std::filesystem::path path) : path_(std::move(path)), replacement_(path_) {
  silence();
  std::error_code ignored;
  PC_CHECK(!path_.empty(), "h5", "an HDF5 file needs a name");
  PC_CHECK(!fs::is_directory(path_, ignored), "h5", "cannot write ", path_.string(),
           ": a folder is in its place; remove it or choose another name");
  // Asked of the system first: its reason is plainer than HDF5's.
  {
    const Descriptor probe(::open(replacement_.path().c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    PC_CHECK(probe.fd >= 0, "h5", "cannot write ", path_.string(), ": ", system_error(errno), "; folder ",
             folder_of(path_).string(), " must exist and be writable, or choose another");
  }
  const H5Id creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_userblock(creation.get(), kSealBytes);
  const H5Id access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  H5Pset_fapl_core(access.get(), kChunkBytes, false);
  file_ = H5Id(H5Fcreate(replacement_.path().c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), H5Fclose);
  if (file_.empty()) fail_write(path_, cause());
}

void H5Writer::check_open() const {
  PC_CHECK(!file_.empty(), "h5", path_.string(), " is finished; write before commit");
}

void H5Writer::check_count(const std::string& name, const H5Dims& dims, std::size_t count) const {
  std::uint64_t bytes = 0;
  PC_CHECK(bytes_of(dims, H5Type::u8, bytes) && bytes == count, "h5", "dataset ", name, " of ", path_.string(), " is ",
           text_of(dims), " but was given ", count, " values");
}

void H5Writer::write(const std::string& name, H5Type type, const H5Dims& dims, const void* data,
                     const std::string& description, bool compress) {
  check_open();
  std::uint64_t bytes = 0;
  PC_CHECK(bytes_of(dims, type, bytes) && dims.size() <= H5S_MAX_RANK, "h5", "dataset ", name, " of ", path_.string(),
           " cannot be ", text_of(dims));
  const H5Id properties = dataset_properties(dims, type, compress);
  write_dataset(path_, file_.get(), name, stored(type)[0], native(type), dims, properties.get(), data, description);
}

void H5Writer::write_text(const std::string& name, const std::string& text, const std::string& description) {
  check_open();
  PC_CHECK(text.find('\0') == std::string::npos, "h5", "text ", name, " of ", path_.string(), " has a zero byte");
  const H5Id type = string_type(std::max<std::size_t>(1, text.size()));  // HDF5 has no strings of no bytes
  const H5Id properties = dataset_properties({}, H5Type::u8, false);
  write_dataset(path_, file_.get(), name, type.get(), type.get(), {}, properties.get(), text.c_str(), description);
}

void H5Writer::attribute(const std::string& name, double value) {
  check_open();
  if (!write_attribute(file_.get(), name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value)) {
    fail_write(path_, "attribute ", name, ": ", cause());
  }
}

void H5Writer::attribute(const std::string& name, std::int64_t value) {
  check_open();
  if (!write_attribute(file_.get(), name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value)) {
    fail_write(path_, "attribute ", name, ": ", cause());
  }
}

void H5Writer::attribute(const std::string& name, const std::string& value) {
  check_open();
  PC_CHECK(value.find('\0') == std::string::npos, "h5", "attribute ", name, " of ", path_.string(), " has a zero byte");
  if (!write_attribute(file_.get(), name, value)) fail_write(path_, "attribute ", name, ": ", cause());
}

void H5Writer::commit() {
  check_open();
  void* handle = nullptr;  // of the file's image in memory
  const bool flushed = H5Fflush(file_.get(), H5F_SCOPE_LOCAL) >= 0;
  const ssize_t size = flushed ? H5Fget_file_image(file_.get(), nullptr, 0) : -1;
  hsize_t held = 0;
  if (size < 0 || H5Fget_filesize(file_.get(), &held) < 0 || H5Fget_vfd_handle(file_.get(), H5P_DEFAULT, &handle) < 0) {
    fail_write(path_, cause());
  }
  char* const image = *static_cast<char**>(handle);
  // HDF5 does not count the user block; its own bound guards against a version that does.
  const std::size_t bytes = std::min<std::size_t>(kSealBytes + static_cast<std::size_t>(size), held);
  const Seal seal = seal_of(bytes, hash_on(0, image + kSealBytes, bytes - kSealBytes));
  std::copy(seal.begin(), seal.end(), image);
  write_file(path_, replacement_.path(), image, bytes);
  file_.close();
  replacement_.take_place();
  sync_folder(folder_of(path_));
}

// --- H5Reader ---

H5Reader::H5Reader(std::filesystem::path path) : path_(std::move(path)), length_(check_file(path_)) {
  silence();
  const H5Id access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  H5Pset_file_locking(access.get(), false, true);  // a finished file does not change
  file_ = H5Id(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (file_.empty()) fail_read(path_, "is damaged or cut off: ", cause());
  names_ = dataset_names(path_, file_.get());
}

bool H5Reader::has(const std::string& name) const { return std::binary_search(names_.begin(), names_.end(), name); }

H5Id H5Reader::open(const std::string& name) const {
  if (!has(name)) {
    constexpr std::size_t kListed = 20;
    std::string known;
    for (std::size_t i = 0; i < std::min(kListed, names_.size()); ++i) known += (i > 0 ? ", " : "") + names_[i];
    fail_read(path_, "there is no dataset '", name, "'; there are: ", known, names_.size() > kListed ? ", ..." : "");
  }
  H5Id set(H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
  if (set.empty()) fail_read(path_, "dataset ", name, " is damaged: ", cause());
  return set;
}

H5Dims H5Reader::dims(const std::string& name) const { return dims_of(path_, open(name).get(), name); }

H5Type H5Reader::dtype(const std::string& name) const { return type_of(path_, open(name).get(), name); }

std::size_t H5Reader::check(const std::string& name, H5Type type, const H5Dims& dims) const {
  const H5Id set = open(name);
  if (const H5Dims found = dims_of(path_, set.get(), name); found != dims) {
    fail_read(path_, "dataset ", name, " is ", text_of(found), ", but ", text_of(dims), " was expected");
  }
  if (const H5Type found = type_of(path_, set.get(), name); found != type) {
    fail_read(path_, "dataset ", name, " holds ", name_of(found), ", but ", name_of(type), " was expected");
  }
  std::uint64_t bytes = 0;
  if (!bytes_of(dims, type, bytes) || bytes > most_bytes(path_, length_, set.get(), name)) {
    fail_read(path_, "dataset ", name, " claims to be ", text_of(dims), " of ", name_of(type),
              ", which the file does not hold");
  }
  return bytes / size_of(type);
}

void H5Reader::read(const std::string& name, H5Type type, const H5Dims& dims, void* data) const {
  if (check(name, type, dims) == 0) return;
  const H5Id set = open(name);
  if (H5Dread(set.get(), native(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
    fail_read(path_, "dataset ", name, " cannot be read: ", cause());
  }
}

std::string H5Reader::read_text(const std::string& name) const {
  const H5Id set = open(name);
  const H5Id type(H5Dget_type(set.get()), H5Tclose), space(H5Dget_space(set.get()), H5Sclose);
  static_cast<void>(most_bytes(path_, length_, set.get(), name));  // the text must be in this file
  std::string text;
  if (!read_string(type.get(), space.get(), length_, text, [&](hid_t memory, void* out) {
        return H5Dread(set.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out);
      })) {
    fail_read(path_, "dataset ", name, " is not a text, or is damaged: ", cause());
  }
  return text;
}

std::string H5Reader::description(const std::string& name) const {
  const H5Id set = open(name);
  std::string text;
  if (H5Aexists(set.get(), "description") <= 0) return text;
  const H5Id attribute(H5Aopen(set.get(), "description", H5P_DEFAULT), H5Aclose);
  if (!read_string_attribute(attribute.get(), length_, text)) {
    fail_read(path_, "the description of ", name, " is not a text, or is damaged: ", cause());
  }
  return text;
}

bool H5Reader::has_attribute(const std::string& name) const { return H5Aexists(file_.get(), name.c_str()) > 0; }

H5Id H5Reader::open_attribute(const std::string& name) const {
  if (!has_attribute(name)) fail_read(path_, "there is no attribute '", name, "'");
  H5Id attribute(H5Aopen(file_.get(), name.c_str(), H5P_DEFAULT), H5Aclose);
  if (attribute.empty()) fail_read(path_, "attribute ", name, " is damaged: ", cause());
  return attribute;
}

double H5Reader::attribute_double(const std::string& name) const {
  return number<double>(path_, open_attribute(name).get(), name, H5T_FLOAT, H5T_NATIVE_DOUBLE);
}

std::int64_t H5Reader::attribute_int(const std::string& name) const {
  return number<std::int64_t>(path_, open_attribute(name).get(), name, H5T_INTEGER, H5T_NATIVE_INT64);
}

std::string H5Reader::attribute_text(const std::string& name) const {
  const H5Id attribute = open_attribute(name);
  std::string text;
  if (!read_string_attribute(attribute.get(), length_, text)) {
    fail_read(path_, "attribute ", name, " is not a text, or is damaged: ", cause());
  }
  return text;
}

}  // namespace pc
