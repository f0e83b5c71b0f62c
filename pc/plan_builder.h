// The one loop that runs every schedule but backprop, executed symbolically: each buffer carries the number of its last
// change, so that a result is recorded again only when something that it depends on has changed, and errors that are
// known to be exactly zero (a node that still holds its own prediction) cost nothing. Hoisting of predictions from
// clamped nodes and the light cone of a feedforward start both follow from these two rules.
//
//   plan_builder.cpp    predictions, errors, what is pulled back, and how values move
//   plan_schedules.cpp  the start, the steps of each schedule, learning and the end
//   plan_changes.cpp    predictions and errors by how far they are from the start
//   plan_slices.cpp     the whole relaxation as one call, where the graph allows it
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/feedforward.h"
#include "kernels/settle.h"
#include "pc/operands.h"
#include "pc/plan.h"
#include "pc/states.h"

namespace pc {

/// The slope below zero of a link that is an activation.
double leak_of(const Link& link);

using Key = std::vector<int>;  // the versions of everything that a result was made from

class PlanBuilder {
 public:
  /// `spec` with an exact schedule's own start, steps and rate filled in.
  PlanBuilder(Network& network, const PlanSpec& spec, Plan& plan);
  void build();

 private:
  enum class Free : std::uint8_t { all, part, none };
  enum class Parity : std::uint8_t { both, even, odd };

  struct NodeState {
    Free free = Free::all;
    bool nudged = false;    // free, while a target pulls at it
    int level = -1;         // levels_to_loss, where the schedule asks for it
    int version = 0;        // of its value
    int start_version = 0;  // of its value when the relaxation began
    int whole_version = 0;  // of what buffer "x" holds; by changes, "dx" is ahead of it
    Key back;               // what the "back" buffer was made from
    int back_version = 0;   // 0: known to be zero
    int rests_by = 0;       // the back_version by which it moved last, if it had no error before
    EdgeId map = -1;        // what was pulled back last has still to go through this edge's first link
    EdgeId rest = -1;       // and what comes by this edge is still to be pulled back;
    bool has_back = false;  // by others something has
    bool arrived = false;   // Moves::front: something has been added to "dx"
  };
  struct PredictionState {
    bool fused = false;   // its last link is an activation that is evaluated with the error
    bool pooled = false;  // its last two are an activation and a max-pool, evaluated with the error; by changes alone
    EdgeId unmade = -1;   // what "mu" should hold now is made with the error, by the product of this edge
    bool parts = false;   // "mu" lacks what "base" holds
    Key mu, base, error;
    int mu_version = 0, delta_version = 0;
    int settled_value = -1;  // the version of the value, and what mu was made from, where x = mu entry by entry
    Key settled_mu;
    bool zero = false;             // the current error is known to be zero
    bool changed = false;          // by changes: mu is that of the start and what the change buffers hold
    bool exact_start = false;      // by changes: the error was zero at the start
    bool delta_is_change = false;  // the current error is that of the value, "dx", and stands nowhere else
    Key whole_mu;                  // what "mu_now" was made from
    bool has_energy = false;
    double factor = 1;      // what the current error was multiplied by
    int gated_version = 0;  // of the error that the gate has seen
  };
  /// What makes an error: the graph's energy, or the one that the schedule puts in its place.
  struct Terms {
    const Energy* energy;
    double precision;
    View precisions;
  };
  struct Pull {
    NodeId node;
    View own, back;    // dF/dx = own - back
    EdgeId map = -1;   // or dF/dx = own - f'(x) back, where all that leaves the node goes through this edge's map
    EdgeId rest = -1;  // and to `back`, which then may be empty, comes what this edge brings
  };

  // --- predictions, errors, the way back (plan_builder.cpp) ---
  void predict(PredictionId p);
  void predict_all();
  void predict_edges(PredictionId p, bool constant_ones, View mu, Write write, View base = {});
  void predict_edge(EdgeId e, View mu, Write write, const View& base = {});
  void predict_link(EdgeId e, int link, View out, Write write, const View& base = {});
  void predict_pooled(EdgeId e, const View& mu);
  void predict_end(EdgeId e, const View& mu);
  void predict_inner(EdgeId e, int links);
  bool mapped(EdgeId e, bool change);
  [[nodiscard]] bool errs_alone(PredictionId p);
  [[nodiscard]] EdgeId only_product(PredictionId p) const;
  [[nodiscard]] EdgeId errs_at_once(PredictionId p);
  void compare_at_once(PredictionId p, const Terms& t, double factor);
  void compare(PredictionId p, bool want_energy, double factor);
  void nudge_pull(NodeId v);
  void edge_backward(EdgeId e);
  void prepare(const Link& link, const OpCall& call);
  void pull_link(EdgeId e, int link, int source, View dx, Write write);
  void pull_edge(EdgeId e, int source, View back, Write write);
  void pull_edges(const std::vector<EdgeId>& edges, View back, Write write);
  [[nodiscard]] std::vector<EdgeId> largest_first(std::vector<EdgeId> edges) const;
  void pull_to_map(const std::vector<EdgeId>& edges);
  [[nodiscard]] bool moves_with_map(NodeId v) const;
  [[nodiscard]] bool moves_at_once(NodeId v, EdgeId e);
  bool pull_back(NodeId v, bool with_map = false);
  View own_gradient(NodeId v);
  [[nodiscard]] bool goes_whole_way() const;
  bool leaps(NodeId v);
  bool lands(NodeId v);
  bool rests(NodeId v);
  std::vector<Pull> pull(Parity parity);
  void move(const Pull& pull, const View& variable);
  void move_with_map(const Pull& pull);
  void move_at_once(const Pull& pull);
  void move_values(const std::vector<Pull>& pulls, Write steepest);
  void shake(double deviation);
  void flow_step(int t);
  void find_steepest(const View& rows, Write& write);

  // --- by changes (plan_changes.cpp) ---
  [[nodiscard]] bool can_use_changes() const;
  void find_pooled();
  [[nodiscard]] bool has_pools() const;
  void begin_changes();
  bool predict_change(PredictionId p);
  void compare_changes(PredictionId p, const Terms& t, const View& energy, double factor);
  void compare_pooled(PredictionId p, const Terms& t, const View& energy, double factor);
  [[nodiscard]] Window pool_window(EdgeId e) const;
  [[nodiscard]] View pooled_bias(EdgeId e) const;
  [[nodiscard]] bool passes_back(PredictionId p) const;
  void show_observed();
  [[nodiscard]] bool learned(EdgeId e, int link) const;
  [[nodiscard]] bool moves(EdgeId e, int link) const;
  [[nodiscard]] bool moves(EdgeId e) const { return moves(e, last_link(e)); }
  [[nodiscard]] bool moved(NodeId v) const { return node(v).version != node(v).start_version; }
  [[nodiscard]] bool wants_whole(NodeId v) const;
  [[nodiscard]] bool feeds_products(NodeId v) const;
  [[nodiscard]] bool rounds_products() const;
  View mu_change(PredictionId p);
  View link_change(EdgeId e, int link);
  View back_of(NodeId v);
  template <class Args>
  void send_on(Args& args, EdgeId e, int link);
  View change(NodeId v);
  View whole(NodeId v);
  View whole_mu(PredictionId p);
  View whole_link(EdgeId e, int link);
  View start_input(EdgeId e, int link);
  std::vector<View> weight_changes(EdgeId e, int link);
  View start_error(PredictionId p);

  // --- all steps in one call (plan_slices.cpp) ---
  [[nodiscard]] std::string not_sliced() const;
  std::optional<kernels::SettleArgs> slices();
  [[nodiscard]] kernels::SettleArgs with_starts(kernels::SettleArgs args);
  [[nodiscard]] kernels::SettleArgs as_tiled(kernels::SettleArgs args);
  [[nodiscard]] std::string not_tiled(const kernels::SettleArgs& args);
  [[nodiscard]] bool gains_by_tiles(const kernels::SettleArgs& args);
  void leave_out_resting(kernels::SettleArgs& args);
  void settle(kernels::SettleArgs args);
  [[nodiscard]] bool constant_prediction(PredictionId p) const;
  bool begin_inside(kernels::SettleArgs& args);
  void have_start();
  [[nodiscard]] bool settles_errors() const;
  void ask_errors(kernels::SettleArgs& args);
  void have_errors();

  // --- schedules (plan_schedules.cpp) ---
  void look(int t);
  void start();
  void start_values();
  void nudge_targets();
  void reset_stepper();
  void keep_start();
  void observe_start();
  void restart();
  void sweep();
  [[nodiscard]] bool starts_directly(NodeId v) const;
  void set_to_prediction(NodeId v);
  [[nodiscard]] std::optional<kernels::FeedforwardLayer> layer_of(NodeId v, NodeId& from);
  std::vector<NodeId> start_chain(NodeId v, const std::vector<NodeId>& order);
  void clamp_part(NodeId v);
  void evaluate(int t, bool want_energy);
  void step(int t);
  void descend(int t);
  void begin_front();
  void front_step(int t);
  void show_values();
  void deliver(PredictionId p);
  void error_step();
  void follow_errors();
  void gate(PredictionId p);
  void begin_gradients();
  void have_link(EdgeId e, int link);
  void gradients_of(EdgeId e);
  void gradients_of_all();
  void end_gradients();
  void learn_in_loop(int t);
  void add_side(double share);
  void finish();
  void learn_at_end();
  void update();
  void learn_precisions();
  void add_energies(std::string (*name)(const Graph&, PredictionId));
  void add_total_energy(const View& out, Write write);
  void find_costs();
  [[nodiscard]] bool unrolled() const;
  void relax(std::vector<Program>& steps);

  // --- small questions ---
  [[nodiscard]] int fresh() { return ++versions_; }
  [[nodiscard]] const Schedule& schedule() const { return *spec_.schedule; }
  [[nodiscard]] bool learning() const { return spec_.gradients || spec_.learn; }
  [[nodiscard]] bool updates_in_loop() const { return spec_.learn && schedule().learn == Learn::every_step; }
  [[nodiscard]] bool precisions_change() const {
    return spec_.relax.precision.kind != PrecisionSchedule::Kind::constant;
  }
  [[nodiscard]] bool one_sided() const { return spec_.settings.nudge.value_or(Nudge{}).side != Nudge::Side::centered; }
  [[nodiscard]] bool by_front() const { return schedule().moves == Moves::front; }
  [[nodiscard]] bool by_errors() const { return schedule().engine == Engine::errors; }
  [[nodiscard]] bool can_fuse(PredictionId p);
  [[nodiscard]] bool constant_edge(EdgeId e) const;
  [[nodiscard]] Key edge_key(EdgeId e) const;
  [[nodiscard]] Key prediction_key(PredictionId p) const;
  /// Whether a result was made from what now would be; `same` also notes that it is, from here on.
  [[nodiscard]] bool known(const Key& last, Key now) const;
  [[nodiscard]] bool same(Key& last, Key now) const;
  [[nodiscard]] Terms terms(PredictionId p);
  [[nodiscard]] double factor(int t, PredictionId p) const;
  [[nodiscard]] double nudge_beta() const;
  [[nodiscard]] const Link& link_of(EdgeId e, int link) const {
    return graph_.edge(e).chain[static_cast<std::size_t>(link)];
  }
  [[nodiscard]] int last_link(EdgeId e) const { return static_cast<int>(graph_.edge(e).chain.size()) - 1; }
  /// Behind it stand only links that are evaluated with the error.
  [[nodiscard]] int last_made(EdgeId e) const {
    const PredictionState& s = state(graph_.edge(e).prediction);
    return last_link(e) - (s.pooled ? 2 : s.fused ? 1 : 0);
  }
  [[nodiscard]] NodeState& node(NodeId v) { return nodes_[static_cast<std::size_t>(v)]; }
  [[nodiscard]] const NodeState& node(NodeId v) const { return nodes_[static_cast<std::size_t>(v)]; }
  [[nodiscard]] PredictionState& state(PredictionId p) { return predictions_[static_cast<std::size_t>(p)]; }
  [[nodiscard]] const PredictionState& state(PredictionId p) const { return predictions_[static_cast<std::size_t>(p)]; }
  [[nodiscard]] View value(NodeId v) { return network_.value(v, spec_.batch); }
  [[nodiscard]] View buffer(const std::string& kind, NodeId v) { return network_.node_buffer(kind, v, spec_.batch); }
  [[nodiscard]] View mu(PredictionId p) { return network_.prediction_buffer("mu", p, spec_.batch); }
  [[nodiscard]] View delta(PredictionId p) { return network_.prediction_buffer("delta", p, spec_.batch); }
  [[nodiscard]] View free_mask(NodeId v) { return node(v).free == Free::part ? buffer("free", v) : View{}; }
  [[nodiscard]] View energy_rows(PredictionId p) {
    return network_.row_buffer("energy/" + graph_.prediction(p).name, spec_.batch);
  }

  // What edges read: the values, or, with frozen predictions, the values of the start.
  [[nodiscard]] View source(NodeId v);
  [[nodiscard]] int source_version(NodeId v) const { return frozen_ ? node(v).start_version : node(v).version; }
  [[nodiscard]] std::vector<View> inputs(EdgeId e, int link);
  /// What a link's operator keeps, if it is to be given it by this plan.
  [[nodiscard]] std::vector<View> state_of(EdgeId e, int link) { return given_state(network_, spec_, e, link); }
  /// The same as the link's operator takes them.
  [[nodiscard]] std::vector<View> operands(EdgeId e, int link);

  // What a prediction sends to its sources: its error; with errors as variables, the slope of the whole energy.
  [[nodiscard]] bool passes_on(PredictionId p) const;
  [[nodiscard]] bool sends_nothing(PredictionId p) { return passes_on(p) ? sent_version(p) == 0 : state(p).zero; }
  [[nodiscard]] int sent_version(PredictionId p) {
    return passes_on(p) ? node(graph_.prediction(p).node).back_version : state(p).delta_version;
  }
  /// What arrives at the output of a link on the way back.
  [[nodiscard]] View arriving(EdgeId e, int link);

  void record_into(Program& program) {
    exec_.recorder = program_ = &program;
    operands_.record_into(program);
    if (!spec_.optimize) program.apart();  // where nothing is left out, what is known to be zero must come out so
  }
  void part(std::string_view name) { program_->part(name); }

  Network& network_;
  const Graph& graph_;
  PlanSpec spec_;
  Plan& plan_;
  Exec exec_;
  Program* program_ = nullptr;
  Operands operands_;
  int versions_ = 0;
  int phase_ = 0;                // ep relaxes once on each side
  bool pulls_ = true;            // targets pull at nudged nodes
  bool errors_next_ = false;     // predictions are made for the errors that follow, and for nothing else
  bool frozen_ = false;          // edges read the values of the start
  bool keeps_start_ = false;     // in buffers "x0"
  bool gated_ = false;           // weights learn from what the gate lets through
  bool backward_ = false;        // errors as variables: on the way back
  bool teaching_ = false;        // weights learn from the next errors
  PredictionId direct_ = -1;     // what is predicted now in the place of the value
  bool starts_changes_ = false;  // what is predicted now is what changes will be counted from
  bool by_changes_ = false;  // from the first look on, the values that move are "dx"; by the front, "x" keeps the start
  std::vector<NodeState> nodes_;
  std::vector<PredictionState> predictions_;
  std::vector<Key> edge_back_;  // what an edge's "dz" buffers were made from
  std::vector<Key> mapped_;     // by edge that holds it: what the map that it shares with others was made from
  std::vector<Key> prepared_;   // by weight: the version that its operator has been prepared for
  std::vector<int> weight_version_, weight_start_;  // by parameter: now, and when the relaxation began
  std::vector<Key> weight_changes_;                 // by parameter: what its change was made from
  std::set<ParamId> written_;                       // gradients that have been begun
  std::optional<kernels::SettleArgs> sliced_;       // the whole relaxation, where it is one call
  Regime regime_ = Regime::library;                 // and how that call does it
  bool begins_inside_ = false;                      // which makes the start too
};

}  // namespace pc
