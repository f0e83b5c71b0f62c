// What matrix products multiply: float32 as it is, or copies of it in a type of fewer bits, which tensor cores take.
#pragma once

#include <vector>

#include "kernels/narrow.h"
#include "kernels/program.h"
#include "pc/network.h"

namespace pc {

/// What an operand is, and so the power of two that it is multiplied by in float16: changes and errors would else be
/// lost below its smallest number.
enum class Magnitude : std::uint8_t {
  value,  // of order 1: values and weights
  change  // far below it: changes of values, and errors
};

/// Makes operands, each once for as long as what it was made from is not written again.
class Operands {
 public:
  /// `type`: float32 (operands are what they are made from), tf32, float16 or bfloat16.
  Operands(Network& network, DType type) : network_(network), type_(type) {}

  /// Operands are recorded into `program` from now on, and what others have recorded is forgotten.
  void record_into(Program& program);

  /// `of` as an operand of an operator's products; the operator may have none.
  [[nodiscard]] View of(const Op& op, const View& of, Magnitude magnitude);
  [[nodiscard]] std::vector<View> of(const Op& op, std::vector<View> views, Magnitude magnitude);
  /// The inputs and the weights of a link for products that lose no digits, at three times the work; where the
  /// operator's cannot be split, as operands.
  [[nodiscard]] std::vector<View> split_inputs(EdgeId edge, int link, std::vector<View> inputs);
  [[nodiscard]] std::vector<View> split_weights(EdgeId edge, int link);
  /// The weights of a link of an edge; biases are no operands.
  [[nodiscard]] std::vector<View> weights(EdgeId edge, int link);
  /// Makes those of all weights first, once for all runs in a row: updates keep up with them. Where they have 16 bits.
  void prepare_weights();
  /// For a kernel that updates `of`: its operand, if there is one to keep up with it.
  [[nodiscard]] kernels::Narrowed kept_up(const View& of);
  /// What the network has for the link's sparse operator: by blocks where operands are bfloat16. Others stay float32.
  [[nodiscard]] const SparseViews* sparse(EdgeId edge, int link);
  /// The inputs of a link, or what has arrived at its output, transposed as its sparse products by blocks take them;
  /// empty: there are none.
  [[nodiscard]] View turned(const SparseViews* sparse, const std::vector<View>& inputs);
  [[nodiscard]] View turned_back(const SparseViews* sparse, const View& arriving);
  /// For a kernel that writes `of` and this as well; or in place of `of`, as `instead_of`.
  [[nodiscard]] View turned_beside(const View& of);
  [[nodiscard]] View turned_instead_of(const View& of);
  /// Whether `of` itself holds nothing, as an operand has been written in its place.
  [[nodiscard]] bool alone(const View& of);
  /// What parameter `param` of a link learns from: an error as an operand, but for a bias as it is, if it is.
  [[nodiscard]] View teaching(const Link& link, std::size_t param, const View& delta);
  /// The power of two that they are multiplied by.
  [[nodiscard]] int exponent(Magnitude magnitude) const;
  /// For a kernel that writes `of` and may write the operand too; empty where there is none.
  [[nodiscard]] kernels::Narrowed beside(const View& of, Magnitude magnitude);
  /// For a kernel that writes the operand in place of `of`: until somebody writes `of`, all get the operand.
  [[nodiscard]] kernels::Narrowed instead_of(const View& of, Magnitude magnitude);
  /// Whether they lose digits.
  [[nodiscard]] bool lossy() const { return type_ != DType::f32; }
  /// Whether operands have 16 bits, and so are other memory than what they are made from.
  [[nodiscard]] bool narrower() const { return type_ == DType::f16 || type_ == DType::bf16; }

 private:
  struct Copy {
    View of, copy;
    bool fresh = false;
    bool alone = false;  // `of` holds nothing
  };
  void catch_up();
  [[nodiscard]] std::int64_t run_of(EdgeId edge, int link) const;
  View split(const View& of, std::int64_t run, bool weights);
  [[nodiscard]] bool is_weight(const Link& link, std::size_t param) const;
  Copy& copy_in(const View& memory, const View& of);
  Copy& copy(const View& of, Magnitude magnitude);
  View turn(const View& of);

  Network& network_;
  DType type_;
  Program* program_ = nullptr;
  std::size_t seen_ = 0;  // calls of the program
  std::vector<Copy> copies_;
};

}  // namespace pc
