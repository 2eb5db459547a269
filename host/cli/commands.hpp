// The subcommands, one file each. add_NAME declares the options and the action.
#pragma once

#include <CLI/CLI.hpp>

namespace latchkey::cli {

void add_devices(CLI::App& app);
void add_enroll(CLI::App& app);
void add_compile(CLI::App& app);
void add_lock(CLI::App& app);
void add_run(CLI::App& app);
void add_inspect(CLI::App& app);
void add_explain(CLI::App& app);
void add_bench(CLI::App& app);
void add_wipe(CLI::App& app);
void add_attest(CLI::App& app);
void add_rotate(CLI::App& app);
void add_rewrap(CLI::App& app);
void add_ticket(CLI::App& app);

}  // namespace latchkey::cli
