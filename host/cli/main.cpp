// latchkey: the command-line tool.
#include <fmt/format.h>

#include <exception>
#include <string>
#include <vector>

#include "commands.hpp"
#include "console.hpp"
#include "latchkey/error.hpp"
#include "latchkey_spec.hpp"
#include "report.hpp"

using namespace latchkey;

namespace {

constexpr const char* kFooter = R"(A first session with a simulated card:
  latchkey enroll  --device sim:7 --record card7.lkd
  latchkey compile model.onnx --calibrate images-idx3-ubyte.gz -o model.lkm
  latchkey lock    model.lkm --record card7.lkd -o model.lkx
  latchkey run     model.lkx --record card7.lkd --device sim:7 --images images-idx3-ubyte.gz

Exit codes: 0 success, 2 usage, 3 bad file, 4 unsupported model, 5 no device, 6 device in use,
7 not enrolled, 8 already enrolled, 9 the lock refused, 10 run failed, 11 package and card do not
match (or results differ), 12 input/output error, 130 interrupted.)";

int fail(int code, const char* what) {
  fmt::print(stderr, "latchkey: error: {}\n", what);
  nlohmann::json details = cli::error_details();
  details["exit_code"] = code;
  details["message"] = what;
  cli::result({{"error", details}});
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Latchkey runs a neural network only on the chip it was locked to."};
  app.name("latchkey");
  app.footer(kFooter);
  app.set_version_flag("--version",
                       fmt::format("latchkey {}", cli::version_text(spec::build_version)));
  app.require_subcommand(1);
  app.fallthrough();
  app.add_flag("--json", cli::the_console().json, "Print the result as one JSON object");
  cli::catch_signals();
  cli::add_devices(app);
  cli::add_enroll(app);
  cli::add_compile(app);
  cli::add_lock(app);
  cli::add_run(app);
  cli::add_inspect(app);
  cli::add_explain(app);
  cli::add_bench(app);
  cli::add_attest(app);
  cli::add_rotate(app);
  cli::add_rewrap(app);
  cli::add_ticket(app);
  cli::add_wipe(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // help and version
    // CLI11 complains of what is missing first; a word that nobody understood explains it better.
    std::string what = e.what();
    std::vector<std::string> unknown = app.remaining(true);
    std::erase(unknown, "--");
    if (!unknown.empty()) what = fmt::format("unknown argument '{}'", unknown.front());
    return fail(
        static_cast<int>(errc::usage),
        fmt::format("{}; run `latchkey --help`, or --help after a subcommand", what).c_str());
  } catch (const error& e) {
    return fail(e.exit_code(), e.what());
  } catch (const std::bad_alloc&) {
    return fail(static_cast<int>(errc::io), "out of memory");
  } catch (const std::exception& e) {
    return fail(1, e.what());
  }
  return 0;
}
