// Questions to a trained run: what each task of `pc query` clamps, what it reads, and how the answer is measured.
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "experiments/ask.h"
#include "experiments/commands.h"
#include "experiments/config.h"
#include "experiments/feed.h"
#include "experiments/hopfield.h"
#include "experiments/png.h"
#include "experiments/progress_line.h"

namespace pc::experiments {

/// Something to draw and to keep: pictures, one a row, in the units of the network.
struct Strip {
  std::string name;
  Rows values;
};

/// One measured number; where smaller or larger is better is in its name.
struct QueryMeasure {
  std::string name;
  double value = 0;
  const char* about = kError;

  static constexpr const char* kError = "mean squared difference of an entry, in units of 0..1";
  static constexpr const char* kShare = "share of the samples, 0..1";
};

/// Of a run that has learned a text: a sequence of characters, and the likeliest one after each.
struct Continued {
  std::string given, next;
};

struct QueryResult {
  std::string task, about;  // about: one line in words
  std::vector<QueryMeasure> measured;
  std::vector<Strip> strips;  // rows of the grid of pictures, from the top
  std::vector<Strip> values;  // of small nodes: what they answer
  std::vector<Continued> texts;
  std::vector<double> energy, error;  // per sample: before each step and at the end; error: of what was asked for
  int steps = 0, shown = 1;           // shown: so often an answer was what was asked next; steps are those of all
};

/// A run, its data and the network that its checkpoint holds, ready to be asked.
class Query {
 public:
  /// `quiet`: without progress on standard error.
  Query(const Config& config, const QueryOptions& options, const std::filesystem::path& checkpoint,
        const ExecContext& where, bool quiet);

  /// Throws where there is no such task, it makes no sense for the run, or an option says nothing to it.
  static void check(const QueryOptions& options, const Config& config);

  /// The names of all tasks, and how the files of their answers are called: without ending, unless --out says
  /// otherwise.
  static std::vector<std::string> tasks();
  static std::string stem(const std::string& task) { return "query-" + task; }

  QueryResult run();

  /// A row of a strip as a picture.
  [[nodiscard]] Picture picture(const Eigen::VectorXd& values) const;
  [[nodiscard]] bool draws() const { return !shape_.empty(); }

 private:
  Query(const Config& config, const QueryOptions& options, const std::filesystem::path& checkpoint,
        const ExecContext& where, bool quiet, const DataSet& data);

  struct Task {
    const char* name;
    QueryResult (Query::*answer)();
  };
  static const Task kTasks[];
  static const Task& find_task(const std::string& name);

  /// Rows that were settled, and how it went.
  struct Settled {
    Rows answer;
    Eigen::VectorXd energies;  // of each row, at the end
    std::vector<double> energy, error;
    int steps = 0, shown = 1;
  };
  /// What is said of a node, by rows.
  struct Said {
    NodeId node = 0;
    Rows values, known;  // known empty: all
    bool clamped = true;
  };
  /// What the answer is compared with: rows of the node that is read, where `where` (empty: everywhere) is not 0.
  struct Truth {
    Rows values, where;
  };

  void begin_progress(const std::string& what, std::int64_t questions, std::int64_t count);
  Settled settle(std::vector<Said> said, NodeId read, const Truth& truth = {});
  Settled settle_again(const Said& said, NodeId read, const Truth& truth, int repeat);
  Settled settle_best(const std::string& what, const Said& said, NodeId read, const Truth& truth, int repeat);
  [[nodiscard]] Rows read_node(NodeId node, std::int64_t count);
  [[nodiscard]] std::vector<Said> asked_for();
  [[nodiscard]] std::vector<Said> asked_beside(const std::vector<Said>& own, NodeId read);
  [[nodiscard]] Said parse(const std::string& text, bool clamped);
  [[nodiscard]] Rows values_of(const std::string& what, NodeId node);

  QueryResult ask_freely();
  QueryResult classify();
  QueryResult generate();
  QueryResult complete();
  QueryResult denoise();
  QueryResult recall();
  QueryResult replay();
  QueryResult interpolate();
  QueryResult sample();

  void add_settled(QueryResult& result, const Settled& settled) const;
  void add_answers(QueryResult& result, std::int64_t count);
  [[nodiscard]] std::vector<Continued> continued(const Rows& tokens, const Rows& answers) const;
  void recall_baselines(QueryResult& result, const std::string& name, const Rows& stored, const Said& cue,
                        double threshold) const;
  [[nodiscard]] const Part& part(const char* fallback) const;
  [[nodiscard]] Rows examples(const Part& part, std::int64_t first, std::int64_t count) const;
  [[nodiscard]] std::int64_t count_from_first(const Part& part, std::int64_t fallback) const;
  [[nodiscard]] Rows labels(const Part& part, std::int64_t first, std::int64_t count) const;
  [[nodiscard]] Eigen::MatrixXd class_means() const;  // a row each; the last: of all examples
  [[nodiscard]] Rows known_part(const std::string& name, std::int64_t count) const;
  [[nodiscard]] Rows noisy(const Rows& rows, double variance) const;
  [[nodiscard]] Eigen::VectorXd errors(const Rows& answer, const Truth& truth) const;
  [[nodiscard]] NodeId need_label() const;
  [[nodiscard]] NodeId answering() const;
  void need_cause(bool makes = false) const;
  [[nodiscard]] NodeId asked_of(const std::vector<Said>& said) const;

  const Config& config_;
  const QueryOptions& options_;
  Feed feed_;
  ProgressLine progress_;
  std::int64_t steps_done_ = 0;
  bool one_of_several_ = false;      // questions whose progress is shown together
  std::vector<std::int64_t> shape_;  // of a picture: {channels, height, width}; empty: examples are none
  Eigen::VectorXd unit_, shift_;     // by entry: in 0..1 a value of the network is (value - shift) * unit
  std::unique_ptr<Network> network_;
  NodeId image_ = 0, label_ = -1;
  int threads_;
};

}  // namespace pc::experiments
