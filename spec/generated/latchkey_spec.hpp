// Generated from spec/latchkey.json by spec/generate.py; do not edit.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace latchkey::spec {

inline constexpr std::uint32_t page_bytes = 4096;  // Bytes of a page: the unit of fetching, encryption and authentication, one maximal AXI4 burst
inline constexpr std::uint32_t beat_bytes = 64;  // Bytes of a memory beat, of an AXI-Stream beat and of a scratchpad word
inline constexpr std::uint32_t page_beats = 64;  // Beats of a page
inline constexpr std::uint32_t tile_dim = 64;  // Rows (K) and columns (output channels) of a weight tile; a page holds one tile
inline constexpr std::uint32_t tag_bytes = 16;  // Bytes of a page's tag in the tag table
inline constexpr std::uint32_t desc_bytes = 128;  // Bytes of a descriptor
inline constexpr std::uint32_t max_descs = 512;  // Descriptors that the descriptor RAM holds
inline constexpr std::uint32_t param_bytes = 16;  // Bytes of one output channel's parameters in a parameter page
inline constexpr std::uint32_t params_per_page = 256;  // Output channels of a parameter page
inline constexpr std::uint32_t max_channels = 4096;  // Output channels of a layer that the parameter RAM holds
inline constexpr std::uint32_t acc_rows = 512;  // Rows of one of the two accumulator banks: the longest sweep over one weight tile
inline constexpr std::uint32_t spad_words = 65536;  // 64-byte words of the activation scratchpad (default: 4 MiB)
inline constexpr std::uint32_t spad_words_n64 = 131072;  // The same of the 64 x 64 card images (8 MiB)
inline constexpr std::uint32_t max_spill_pages = 4096;  // Pages that a program may spill to card memory (16 MiB); their tags stay on chip
inline constexpr std::uint32_t ring_slots = 8;  // Pages that the verify-before-use ring holds
inline constexpr std::uint32_t adapter_words = 16384;  // 64-byte words of an image or result that the input and output adapters buffer (1 MiB)
inline constexpr std::uint32_t helper_words = 272;  // 32-bit words of the helper data
inline constexpr std::uint32_t manifest_words = 32;  // 32-bit words of a manifest
inline constexpr std::uint32_t blob_words = 14;  // 32-bit words of a wrapped model key
inline constexpr std::uint32_t owner_slots = 8;  // Owner slots of a chip, 0..7
inline constexpr std::uint32_t format_version = 1;  // Version of the descriptor, page, manifest and helper formats
inline constexpr std::uint32_t build_version = 0x100;  // Version of the project: major << 16 | minor << 8 | patch

/// Operation of a descriptor.
enum class op : std::uint32_t {
  input = 1,  ///< Take batch images of out_stride words each from the input stream into out_base
  mat_mul = 2,  ///< Convolution or fully connected layer on the array, then requantisation
  max_pool = 3,  ///< Maximum over a kh x kw window; padding is ignored. With repeat_y or repeat_x pixels are repeated instead (nearest neighbour upsampling)
  add = 4,  ///< Elementwise addition of two tensors of the output's shape, with requantisation
  depthwise = 6,  ///< Convolution of every channel with its own kernel of at most 64 taps, then requantisation; one page of weights per channel block, beat ky * kernel_w + kx
  avg_pool = 7,  ///< Sum over a kernel_h x kernel_w window of input minus in_zero, times vec_mult; padding counts as in_zero
  mul = 8,  ///< Elementwise product of two tensors, each minus its zero point, times vec_mult
  table = 9,  ///< Every stored byte b, as an unsigned number, replaced by byte b of the layer's only page; bytes 256 and up of it count for nothing
  product = 10,  ///< MatMul whose weights are the tensor at in2_base, head by head: 1 x 1 windows, the tensors' strides are those of a head, batch * heads of them; parameter pages only
  softmax = 11,  ///< Softmax over the channels of every pixel; one page of exponentials
  layer_norm = 12,  ///< Layer normalisation over the channels of every pixel; parameter pages only
  load = 13,  ///< Pages to the scratchpad: out_stride words of the package's param_pages pages to out_base, for one image; with spilled what a Spill put away, batch * out_stride words from page spill_page of the spill area on
  spill = 14,  ///< Seal batch * in_stride words from in_base, under the key of this run, into page spill_page of the spill area and the pages behind it
  output = 5,  ///< Send batch images of in_stride words each from in_base to the output stream; only after every tag of the run has verified
  end = 15,  ///< Last descriptor
};
/// The documented meaning of a op value; empty when unknown.
constexpr std::string_view describe(op value) {
  switch (value) {
    case op::input: return "Take batch images of out_stride words each from the input stream into out_base";
    case op::mat_mul: return "Convolution or fully connected layer on the array, then requantisation";
    case op::max_pool: return "Maximum over a kh x kw window; padding is ignored. With repeat_y or repeat_x pixels are repeated instead (nearest neighbour upsampling)";
    case op::add: return "Elementwise addition of two tensors of the output's shape, with requantisation";
    case op::depthwise: return "Convolution of every channel with its own kernel of at most 64 taps, then requantisation; one page of weights per channel block, beat ky * kernel_w + kx";
    case op::avg_pool: return "Sum over a kernel_h x kernel_w window of input minus in_zero, times vec_mult; padding counts as in_zero";
    case op::mul: return "Elementwise product of two tensors, each minus its zero point, times vec_mult";
    case op::table: return "Every stored byte b, as an unsigned number, replaced by byte b of the layer's only page; bytes 256 and up of it count for nothing";
    case op::product: return "MatMul whose weights are the tensor at in2_base, head by head: 1 x 1 windows, the tensors' strides are those of a head, batch * heads of them; parameter pages only";
    case op::softmax: return "Softmax over the channels of every pixel; one page of exponentials";
    case op::layer_norm: return "Layer normalisation over the channels of every pixel; parameter pages only";
    case op::load: return "Pages to the scratchpad: out_stride words of the package's param_pages pages to out_base, for one image; with spilled what a Spill put away, batch * out_stride words from page spill_page of the spill area on";
    case op::spill: return "Seal batch * in_stride words from in_base, under the key of this run, into page spill_page of the spill area and the pages behind it";
    case op::output: return "Send batch images of in_stride words each from in_base to the output stream; only after every tag of the run has verified";
    case op::end: return "Last descriptor";
  }
  return {};
}

/// Commands of CMD.
enum class cmd : std::uint32_t {
  start = 1,  ///< Sample the PUF, correct the response with the helper data, derive the root key
  unwrap = 2,  ///< Check the manifest and unwrap the model key
  zeroise = 3,  ///< Wipe every key and every plaintext weight and activation
  enrol = 4,  ///< Enrol build only: select responses, make helper data, export the roots of owner slots once
  kek_taken = 5,  ///< Enrol build only: the roots were read; wipe them
  attest = 6,  ///< Answer the challenge in MSG_IN; after Start, before Unwrap
  nonce = 7,  ///< Draw a nonce for one ticket; after Start, before Unwrap
  ticket = 8,  ///< Check the ticket in MSG_IN and put it into force; after Start, before Unwrap
};
/// The documented meaning of a cmd value; empty when unknown.
constexpr std::string_view describe(cmd value) {
  switch (value) {
    case cmd::start: return "Sample the PUF, correct the response with the helper data, derive the root key";
    case cmd::unwrap: return "Check the manifest and unwrap the model key";
    case cmd::zeroise: return "Wipe every key and every plaintext weight and activation";
    case cmd::enrol: return "Enrol build only: select responses, make helper data, export the roots of owner slots once";
    case cmd::kek_taken: return "Enrol build only: the roots were read; wipe them";
    case cmd::attest: return "Answer the challenge in MSG_IN; after Start, before Unwrap";
    case cmd::nonce: return "Draw a nonce for one ticket; after Start, before Unwrap";
    case cmd::ticket: return "Check the ticket in MSG_IN and put it into force; after Start, before Unwrap";
  }
  return {};
}

/// Public state of the key block (KEY_STATE).
enum class key_state : std::uint32_t {
  idle = 0,  ///< Nothing started
  busy = 1,  ///< A command is running
  started = 2,  ///< The root key stands
  key_loaded = 3,  ///< A model key is loaded
  failed = 4,  ///< The last command failed; see KEY_ERR
  locked = 5,  ///< Locked out until reset
};
/// The documented meaning of a key_state value; empty when unknown.
constexpr std::string_view describe(key_state value) {
  switch (value) {
    case key_state::idle: return "Nothing started";
    case key_state::busy: return "A command is running";
    case key_state::started: return "The root key stands";
    case key_state::key_loaded: return "A model key is loaded";
    case key_state::failed: return "The last command failed; see KEY_ERR";
    case key_state::locked: return "Locked out until reset";
  }
  return {};
}

/// Reason of the key block (KEY_ERR).
enum class key_err : std::uint32_t {
  none = 0,  ///< No error
  illegal_command = 1,  ///< Command not allowed in this state
  helper_malformed = 2,  ///< Helper data: wrong length, magic, format or mask weight
  key_failure = 3,  ///< Key failure: wrong device, or changed helper data, wrapped key or manifest; on the secret side of the key the chip tells no more
  manifest_malformed = 4,  ///< Manifest: wrong length, magic or format
  config_mismatch = 5,  ///< The package is for another build configuration
  version_too_old = 6,  ///< The package's version is below the chip's minimum version
  life_cycle = 7,  ///< The life cycle forbids the command
  locked_out = 8,  ///< Too many failed starts; reset the card
  device_mismatch = 9,  ///< The manifest names another device than the helper data
  puf_health = 10,  ///< The PUF failed its start-up health test
  page_tampered = 11,  ///< A page failed authentication; keys are wiped and the session is locked
  already_enrolled = 12,  ///< Enrol build: this chip was enrolled before
  too_few_reliable = 13,  ///< Enrol build: too few reliable responses
  epoch_too_old = 14,  ///< The package's epoch is below the lowest epoch of its owner slot
  ticket_required = 15,  ///< The package needs a ticket of its owner slot, and none is in force
  ticket_stale = 16,  ///< The ticket is not for the nonce that the chip drew last, or that nonce has served
  ticket_expired = 17,  ///< The ticket's runs or its time are used up; keys are wiped
  message_malformed = 18,  ///< Challenge or ticket: wrong length, magic, format or slot
  slot = 19,  ///< Enrol build: the owner slots are not 1 to 8 of 0..7
};
/// The documented meaning of a key_err value; empty when unknown.
constexpr std::string_view describe(key_err value) {
  switch (value) {
    case key_err::none: return "No error";
    case key_err::illegal_command: return "Command not allowed in this state";
    case key_err::helper_malformed: return "Helper data: wrong length, magic, format or mask weight";
    case key_err::key_failure: return "Key failure: wrong device, or changed helper data, wrapped key or manifest; on the secret side of the key the chip tells no more";
    case key_err::manifest_malformed: return "Manifest: wrong length, magic or format";
    case key_err::config_mismatch: return "The package is for another build configuration";
    case key_err::version_too_old: return "The package's version is below the chip's minimum version";
    case key_err::life_cycle: return "The life cycle forbids the command";
    case key_err::locked_out: return "Too many failed starts; reset the card";
    case key_err::device_mismatch: return "The manifest names another device than the helper data";
    case key_err::puf_health: return "The PUF failed its start-up health test";
    case key_err::page_tampered: return "A page failed authentication; keys are wiped and the session is locked";
    case key_err::already_enrolled: return "Enrol build: this chip was enrolled before";
    case key_err::too_few_reliable: return "Enrol build: too few reliable responses";
    case key_err::epoch_too_old: return "The package's epoch is below the lowest epoch of its owner slot";
    case key_err::ticket_required: return "The package needs a ticket of its owner slot, and none is in force";
    case key_err::ticket_stale: return "The ticket is not for the nonce that the chip drew last, or that nonce has served";
    case key_err::ticket_expired: return "The ticket's runs or its time are used up; keys are wiped";
    case key_err::message_malformed: return "Challenge or ticket: wrong length, magic, format or slot";
    case key_err::slot: return "Enrol build: the owner slots are not 1 to 8 of 0..7";
  }
  return {};
}

/// Result of the last run (RUN_STATUS).
enum class run_status : std::uint32_t {
  ok = 0,  ///< Finished; outputs were released
  no_key = 1,  ///< No model key and manifest are loaded
  page_tampered = 2,  ///< A page failed authentication; FAIL_PAGE names it; no output was released
  bad_descriptor = 3,  ///< A descriptor, or their number, is not legal for this build
  bus_error = 4,  ///< The memory answered a read with an error
  bad_batch = 5,  ///< The batch is zero or larger than the program allows
  bad_input = 6,  ///< The input stream ended early or late
  wiped = 7,  ///< The run was stopped by a wipe
  spill_tampered = 8,  ///< A page of the spill area failed authentication; FAIL_PAGE names it, counted from the area's first; no output was released
  no_run_key = 9,  ///< The noise source gave no key for the spill area
};
/// The documented meaning of a run_status value; empty when unknown.
constexpr std::string_view describe(run_status value) {
  switch (value) {
    case run_status::ok: return "Finished; outputs were released";
    case run_status::no_key: return "No model key and manifest are loaded";
    case run_status::page_tampered: return "A page failed authentication; FAIL_PAGE names it; no output was released";
    case run_status::bad_descriptor: return "A descriptor, or their number, is not legal for this build";
    case run_status::bus_error: return "The memory answered a read with an error";
    case run_status::bad_batch: return "The batch is zero or larger than the program allows";
    case run_status::bad_input: return "The input stream ended early or late";
    case run_status::wiped: return "The run was stopped by a wipe";
    case run_status::spill_tampered: return "A page of the spill area failed authentication; FAIL_PAGE names it, counted from the area's first; no output was released";
    case run_status::no_run_key: return "The noise source gave no key for the spill area";
  }
  return {};
}

/// Byte offsets of the registers on AXI-Lite.
namespace reg {
inline constexpr std::uint32_t ap_ctrl = 0x0;  // ap_ctrl_chain: bit 0 start, 1 done, 2 idle, 3 ready, 4 continue
inline constexpr std::uint32_t gier = 0x4;  // Global interrupt enable (bit 0)
inline constexpr std::uint32_t ip_ier = 0x8;  // Interrupt enable: bit 0 done, 1 ready
inline constexpr std::uint32_t ip_isr = 0xc;  // Interrupt status, toggle on write
inline constexpr std::uint32_t pages_addr_lo = 0x10;  // Address of page 0, low half; 4 KiB aligned
inline constexpr std::uint32_t pages_addr_hi = 0x14;  // Address of page 0, high half
inline constexpr std::uint32_t tags_addr_lo = 0x1c;  // Address of the tag table, low half; 4 KiB aligned
inline constexpr std::uint32_t tags_addr_hi = 0x20;  // Address of the tag table, high half
inline constexpr std::uint32_t spill_addr_lo = 0x30;  // Address of the spill area, low half; 4 KiB aligned; not used by a program without Spill
inline constexpr std::uint32_t spill_addr_hi = 0x34;  // Address of the spill area, high half
inline constexpr std::uint32_t batch = 0x28;  // Images of the run
inline constexpr std::uint32_t cmd = 0x40;  // Command of the key block (cmd)
inline constexpr std::uint32_t key_state = 0x44;  // State of the key block (key_state)
inline constexpr std::uint32_t key_err = 0x48;  // Reason of the last failure of the key block (key_err)
inline constexpr std::uint32_t run_status = 0x4c;  // Result of the last run (run_status)
inline constexpr std::uint32_t fail_page = 0x50;  // Page that failed authentication in the last run (global page number)
inline constexpr std::uint32_t min_version = 0x54;  // Lowest package version that the chip accepts
inline constexpr std::uint32_t lc_state = 0x58;  // Life-cycle code (16 bit, sparse)
inline constexpr std::uint32_t start_cycles = 0x5c;  // Cycles of the last START command
inline constexpr std::uint32_t helper_in = 0x60;  // Next word of the helper data
inline constexpr std::uint32_t manifest_in = 0x64;  // Next word of the manifest
inline constexpr std::uint32_t blob_in = 0x68;  // Next word of the wrapped model key
inline constexpr std::uint32_t fill_clear = 0x6c;  // Any write rewinds the four input windows
inline constexpr std::uint32_t unstable = 0x70;  // Votes of the last START that were not unanimous
inline constexpr std::uint32_t slot = 0x74;  // Enrol build: first owner slot whose root is exported
inline constexpr std::uint32_t slots = 0x78;  // Enrol build: owner slots whose roots are exported, 1..8
inline constexpr std::uint32_t margin = 0x7c;  // Enrol build: margin at which enough responses survived
inline constexpr std::uint32_t build_magic = 0x80;  // 0x48434B4C, 'LKCH'
inline constexpr std::uint32_t build_flags = 0x84;  // Bit 0 locked, bit 1 enrol build, bit 2 vendor primitives, bit 3 waveforms compiled in
inline constexpr std::uint32_t config_id = 0x88;  // Hash of what a package must agree with: formats, array, scratchpad
inline constexpr std::uint32_t array_n = 0x8c;  // Rows and columns of the array
inline constexpr std::uint32_t spad_words = 0x90;  // Words of the scratchpad
inline constexpr std::uint32_t build_version = 0x94;  // Version: major << 16 | minor << 8 | patch
inline constexpr std::uint32_t setup_cycles = 0x9c;  // Cycles that loading a model took since the last START: start, unwrap and the wipe between
inline constexpr std::uint32_t build_hash = 0x98;  // First 32 bits of the commit that the build was made from; 0 when unknown, also when files differed from it
inline constexpr std::uint32_t attest_out = 0xa0;  // 8 words: the answer to the last challenge; zero without one
inline constexpr std::uint32_t nonce_out = 0xc0;  // 4 words: the nonce for the next ticket; zero when it has served
inline constexpr std::uint32_t msg_in = 0xd0;  // Next word of a challenge (9 words) or ticket (20 words)
inline constexpr std::uint32_t floor_version = 0xd4;  // Lowest package version of the owner slot last named to the chip
inline constexpr std::uint32_t floor_epoch = 0xd8;  // Lowest epoch of the owner slot last named to the chip
inline constexpr std::uint32_t runs_left = 0xdc;  // Starts that the ticket in force still allows; 0xFFFFFFFF without limit, 0 without ticket
inline constexpr std::uint32_t time_left = 0xe0;  // Time that the ticket in force still has, in units of 2^20 cycles; 0xFFFFFFFF without limit, 0 without ticket
inline constexpr std::uint32_t counters = 0x100;  // 64-bit counters of the last run, low word first, in the order of the table below
inline constexpr std::uint32_t helper_out = 0x800;  // Enrol build: 272 words of helper data
inline constexpr std::uint32_t kek_out = 0x1000;  // Enrol build: 8 words of each exported slot's root, the first slot first, until KekTaken
inline constexpr std::uint32_t layer_cycles = 0x2000;  // 32-bit times of the last run, one a word: word 0 the cycle in which the descriptors stood, word i + 1 the cycle in which descriptor i's operation ended; low 32 bits of the counter Cycles, 0 for what has not ended
}  // namespace reg

/// Register offsets of the arguments of latchkey_enrol.
namespace enrol_arg {
inline constexpr std::uint32_t slot = 0x74;  // First owner slot whose root is exported
inline constexpr std::uint32_t slots = 0x78;  // Owner slots whose roots are exported
}  // namespace enrol_arg

/// Register offsets of the arguments of latchkey_core.
namespace core_arg {
inline constexpr std::uint32_t pages = 0x10;  // Sealed pages
inline constexpr std::uint32_t tags = 0x1c;  // Tag table
inline constexpr std::uint32_t batch = 0x28;  // Images of the run
inline constexpr std::uint32_t spill = 0x30;  // Spill area; a program that spills nothing needs none
}  // namespace core_arg

/// Register offsets of the arguments of latchkey_input.
namespace input_arg {
inline constexpr std::uint32_t images = 0x10;  // Images, each on a 64-byte boundary
inline constexpr std::uint32_t batch = 0x1c;  // Images of the run
inline constexpr std::uint32_t channels = 0x24;  // Channels of an image
inline constexpr std::uint32_t height = 0x2c;  // Rows of an image
inline constexpr std::uint32_t width = 0x34;  // Columns of an image
inline constexpr std::uint32_t type = 0x3c;  // 0 u8, 1 float32
inline constexpr std::uint32_t order = 0x44;  // 0 NCHW, 1 NHWC
inline constexpr std::uint32_t cp_log2 = 0x4c;  // log2 of the bytes of a channel block
inline constexpr std::uint32_t words = 0x54;  // Stream words per image
inline constexpr std::uint32_t image_words = 0x5c;  // Memory words per image
inline constexpr std::uint32_t scale = 0x64;  // Scale of the input tensor
inline constexpr std::uint32_t zero_point = 0x6c;  // Zero point of the input tensor
inline constexpr std::uint32_t mul = 0x74;  // u8: real value is pixel * mul + add
inline constexpr std::uint32_t add = 0x7c;  // u8: real value is pixel * mul + add
inline constexpr std::uint32_t status = 0x84;  // 0 ok, 1 image too large, 2 aborted, 3 wrong stream length
}  // namespace input_arg

/// Register offsets of the arguments of latchkey_output.
namespace output_arg {
inline constexpr std::uint32_t records = 0x10;  // Results, each on a 64-byte boundary
inline constexpr std::uint32_t batch = 0x1c;  // Images of the run
inline constexpr std::uint32_t channels = 0x24;  // Channels of a result
inline constexpr std::uint32_t pixels = 0x2c;  // Pixels of a result
inline constexpr std::uint32_t cp_log2 = 0x34;  // log2 of the bytes of a channel block
inline constexpr std::uint32_t words = 0x3c;  // Stream words per image
inline constexpr std::uint32_t record_words = 0x44;  // Memory words per record
inline constexpr std::uint32_t mode = 0x4c;  // 0 raw, 1 dequantised, 2 softmax, 3 top-k
inline constexpr std::uint32_t k = 0x54;  // Entries of top-k
inline constexpr std::uint32_t scale = 0x5c;  // Scale of the output tensor
inline constexpr std::uint32_t zero_point = 0x64;  // Zero point of the output tensor
inline constexpr std::uint32_t status = 0x6c;  // 0 ok, 1 record too large, 2 aborted by the core, 3 wrong stream length
}  // namespace output_arg

/// Counters of a run, 64 bits each, from reg::counters on.
enum class counter : std::uint32_t {
  cycles,  ///< Cycles from start to done
  array_busy,  ///< The array took a row of activations
  wait_memory,  ///< The array could work, but its weights have not arrived from memory
  wait_decrypt,  ///< The weights have arrived and are being decrypted or verified
  wait_load,  ///< Verified weights are being shifted into the array
  wait_activations,  ///< Weights stand, the feed is still gathering activations
  wait_post,  ///< No accumulator bank is free, or the post unit is still writing results
  vector,  ///< A pool, an addition, an elementwise product, a table, a softmax, a layer normalisation or a depthwise convolution runs
  input,  ///< Taking images from the input stream
  output,  ///< Sending results to the output stream
  control,  ///< Everything else: fetching descriptors, starting and ending layers
  macs,  ///< Useful multiply-accumulates (not part of the sum)
  pages,  ///< Pages that entered the array, the parameter RAM or the descriptor RAM (not part of the sum)
  beats,  ///< Data beats read over the weight port, tags included (not part of the sum)
};
inline constexpr std::uint32_t num_counters = 14;
inline constexpr std::array<std::string_view, num_counters> counter_names = {
    "cycles",
    "array_busy",
    "wait_memory",
    "wait_decrypt",
    "wait_load",
    "wait_activations",
    "wait_post",
    "vector",
    "input",
    "output",
    "control",
    "macs",
    "pages",
    "beats",
};

/// A descriptor's fields, unpacked.
struct descriptor {
  std::uint32_t op = 0;  ///< Operation
  std::uint32_t page_base = 0;  ///< Global page number of the layer's first page
  std::uint32_t region = 0;  ///< Region in the IV of the layer's pages: descriptor index + 1
  std::uint32_t param_pages = 0;  ///< Parameter pages; they come before the tiles
  std::uint32_t n_tiles = 0;  ///< Tiles along the output channels
  std::uint32_t k_tiles = 0;  ///< Tiles along K; tile (n, k) is page param_pages + n * k_tiles + k of the region
  std::uint32_t in_base = 0;  ///< First word of the input tensor
  std::uint32_t in_stride = 0;  ///< Words from one image to the next
  std::uint32_t in_h = 0;  ///< Input rows
  std::uint32_t in_w = 0;  ///< Input columns
  std::uint32_t in_cb = 0;  ///< Channel blocks of a pixel
  std::uint32_t in_cp_log2 = 0;  ///< log2 of the bytes of a channel block, 0..6; below 6 there is one block
  std::uint32_t in_c_last = 0;  ///< Real channels of the last block, 1..64
  std::uint32_t out_base = 0;  ///< First word of the output tensor
  std::uint32_t out_stride = 0;  ///< Words from one image to the next
  std::uint32_t out_h = 0;  ///< Output rows
  std::uint32_t out_w = 0;  ///< Output columns
  std::uint32_t out_cb = 0;  ///< Channel blocks of an output pixel
  std::uint32_t out_cp_log2 = 0;  ///< log2 of the bytes of an output channel block
  std::uint32_t out_c_last = 0;  ///< Real channels of the last output block, 1..64
  std::uint32_t kernel_h = 0;  ///< Window rows
  std::uint32_t kernel_w = 0;  ///< Window columns
  std::uint32_t stride_y = 0;  ///< Window step down
  std::uint32_t stride_x = 0;  ///< Window step across
  std::uint32_t pad_top = 0;  ///< Rows of padding above
  std::uint32_t pad_left = 0;  ///< Columns of padding on the left
  std::uint32_t pad_value = 0;  ///< Padding byte: input zero point xor 0x80
  std::uint32_t taps = 0;  ///< kernel_h * kernel_w * in_cb
  std::uint32_t clamp_lo = 0;  ///< Lower bound of a result, int8 (unsigned bound xor 0x80)
  std::uint32_t clamp_hi = 0;  ///< Upper bound of a result, int8
  std::uint32_t out_zero = 0;  ///< Output zero point xor 0x80, int8
  std::uint32_t in2_base = 0;  ///< Add, Mul, Product: first word of the second tensor
  std::uint32_t in2_stride = 0;  ///< Add, Mul: words from one image of the second tensor to the next; Product: from one head
  std::uint32_t add_mult_a = 0;  ///< Add: multiplier of the first tensor, unsigned
  std::uint32_t add_mult_b = 0;  ///< Add: multiplier of the second tensor, unsigned
  std::uint32_t add_offset = 0;  ///< Add: int32 offset before the shift; holds all three zero points
  std::uint32_t add_shift = 0;  ///< Add: right shift, round half to even, 0..22
  std::uint32_t in2_negate = 0;  ///< Add: the second tensor's product is subtracted
  std::uint32_t in2_broadcast = 0;  ///< Add, Mul: the second tensor has one pixel, used for every pixel
  std::uint32_t fuse_add = 0;  ///< MatMul: the requantised result, clamped to mid_lo..mid_hi, is the first operand of an Add with the tensor at in2_base
  std::uint32_t mid_lo = 0;  ///< MatMul with fuse_add or fuse_dw: lower bound before the addition or convolution, int8
  std::uint32_t mid_hi = 0;  ///< MatMul with fuse_add or fuse_dw: upper bound before it, int8
  std::uint32_t in_zero = 0;  ///< AvgPool, Mul: zero point of the input xor 0x80, int8
  std::uint32_t in2_zero = 0;  ///< Mul: zero point of the second tensor xor 0x80, int8
  std::uint32_t vec_mult = 0;  ///< AvgPool, Mul, Softmax: multiplier of the requantisation, as in a parameter page
  std::uint32_t vec_shift = 0;  ///< AvgPool, Mul, Softmax: shift of the requantisation, as in a parameter page; Softmax: 0..36
  std::uint32_t heads = 0;  ///< Product: heads of an image, 1..255
  std::uint32_t in_planar = 0;  ///< MatMul, Product: the input lies block by block, all pixels of a channel block together; 1 x 1 windows and blocks of 64 bytes only
  std::uint32_t in2_planar = 0;  ///< Product: likewise for the second tensor
  std::uint32_t out_planar = 0;  ///< MatMul, Product: likewise for the output; not with fuse_add
  std::uint32_t in2_transposed = 0;  ///< Product: the second tensor's channels are K and its pixels the output channels, else the other way round; whichever are channels are more than 32
  std::uint32_t fuse_table = 0;  ///< MatMul, Product: results go through a table, as Table's; its page comes before the parameter pages and is not counted in param_pages
  std::uint32_t fuse_dw = 0;  ///< MatMul: a Depthwise follows. The requantised results, mid_h x mid_w, clamped to mid_lo..mid_hi, with the zero point mid_zero, go to it and not to the scratchpad; out_*, clamp_* and out_zero are its own. Pages: the parameters of both, its n_tiles pages of weights, then the tiles; n is then the outermost loop. Not with fuse_add, fuse_table or out_planar
  std::uint32_t spilled = 0;  ///< Load: from the spill area, not from the package
  std::uint32_t dw_pairs = 0;  ///< MatMul with fuse_dw: a row is a pair of neighbouring pixels, and block n of its 64 results is channels 32n to 32n + 31 of the left one, then those of the right one. mid_w counts pairs, n_tiles blocks. The window is up to 3 x 3, 3 wide, with 1 column of padding on the left. dw_stride_x is 1, the output being 32 channels in words of two pixels (out_w counts words, one block of 64), or 2, the left pixel of each pair being the middle of a window; out_* is the output then, n_tiles blocks of 32 channels in blocks of 32 or 64
  std::uint32_t epsilon_lo = 0;  ///< LayerNorm: what is added to n * (sum of squares) - (square of sum), 1..2^39-1, low word
  std::uint32_t epsilon_hi = 0;  ///< LayerNorm: the same, high part
  std::uint32_t mid_h = 0;  ///< MatMul with fuse_dw: rows of its results
  std::uint32_t mid_w = 0;  ///< MatMul with fuse_dw: columns of its results, 1..512
  std::uint32_t dw_kernel_h = 0;  ///< MatMul with fuse_dw: window rows of the Depthwise, 1..5
  std::uint32_t dw_kernel_w = 0;  ///< MatMul with fuse_dw: window columns, 1..5
  std::uint32_t dw_stride_y = 0;  ///< MatMul with fuse_dw: window step down
  std::uint32_t dw_stride_x = 0;  ///< MatMul with fuse_dw: window step across
  std::uint32_t dw_pad_top = 0;  ///< MatMul with fuse_dw: rows of padding above
  std::uint32_t dw_pad_left = 0;  ///< MatMul with fuse_dw: columns of padding on the left
  std::uint32_t mid_zero = 0;  ///< MatMul with fuse_dw: zero point of its results xor 0x80, int8; also the padding byte
  std::uint32_t repeat_y = 0;  ///< MaxPool of 1 x 1 windows without steps and padding: rows that each row becomes; 0 counts as 1
  std::uint32_t repeat_x = 0;  ///< Likewise columns
  std::uint32_t spill_page = 0;  ///< Spill, Load with spilled: first page in the spill area
  std::uint32_t out_pitch = 0;  ///< MatMul, MaxPool, AvgPool, Depthwise: the output is some of the channels of a wider tensor, with so many channel blocks from one pixel to the next, out_cb to 64; 0: out_cb. Blocks of 64 bytes only; not with fuse_add, fuse_dw or out_planar
  std::uint32_t slices = 0;  ///< MatMul: an image is so many slices, in_stride and out_stride words apart, each worked on as an image; in_* and out_* are those of one. Image i's slice r is number i * slices + r. Not with fuse_add, fuse_dw or out_planar. 0: an image is as large as its stride

  /// The 32 words as they lie in memory.
  std::array<std::uint32_t, desc_bytes / 4> pack() const {
    std::array<std::uint32_t, desc_bytes / 4> w{};
    w[0] |= (op & 0xfu) << 0;
    w[1] |= (page_base & 0xffffffffu) << 0;
    w[2] |= (region & 0xffffu) << 0;
    w[2] |= (param_pages & 0xffffu) << 16;
    w[3] |= (n_tiles & 0xffffu) << 0;
    w[3] |= (k_tiles & 0xffffu) << 16;
    w[4] |= (in_base & 0xffffffffu) << 0;
    w[5] |= (in_stride & 0xffffffffu) << 0;
    w[6] |= (in_h & 0xffffu) << 0;
    w[6] |= (in_w & 0xffffu) << 16;
    w[7] |= (in_cb & 0xffffu) << 0;
    w[7] |= (in_cp_log2 & 0x7u) << 16;
    w[7] |= (in_c_last & 0x7fu) << 24;
    w[8] |= (out_base & 0xffffffffu) << 0;
    w[9] |= (out_stride & 0xffffffffu) << 0;
    w[10] |= (out_h & 0xffffu) << 0;
    w[10] |= (out_w & 0xffffu) << 16;
    w[11] |= (out_cb & 0xffffu) << 0;
    w[11] |= (out_cp_log2 & 0x7u) << 16;
    w[11] |= (out_c_last & 0x7fu) << 24;
    w[12] |= (kernel_h & 0xffu) << 0;
    w[12] |= (kernel_w & 0xffu) << 8;
    w[12] |= (stride_y & 0xffu) << 16;
    w[12] |= (stride_x & 0xffu) << 24;
    w[13] |= (pad_top & 0xffu) << 0;
    w[13] |= (pad_left & 0xffu) << 8;
    w[13] |= (pad_value & 0xffu) << 16;
    w[14] |= (taps & 0xffffffffu) << 0;
    w[15] |= (clamp_lo & 0xffu) << 0;
    w[15] |= (clamp_hi & 0xffu) << 8;
    w[15] |= (out_zero & 0xffu) << 16;
    w[16] |= (in2_base & 0xffffffffu) << 0;
    w[17] |= (in2_stride & 0xffffffffu) << 0;
    w[18] |= (add_mult_a & 0xffffu) << 0;
    w[18] |= (add_mult_b & 0xffffu) << 16;
    w[19] |= (add_offset & 0xffffffffu) << 0;
    w[20] |= (add_shift & 0x1fu) << 0;
    w[20] |= (in2_negate & 0x1u) << 8;
    w[20] |= (in2_broadcast & 0x1u) << 9;
    w[20] |= (fuse_add & 0x1u) << 10;
    w[21] |= (mid_lo & 0xffu) << 0;
    w[21] |= (mid_hi & 0xffu) << 8;
    w[21] |= (in_zero & 0xffu) << 16;
    w[21] |= (in2_zero & 0xffu) << 24;
    w[22] |= (vec_mult & 0xffffffffu) << 0;
    w[23] |= (vec_shift & 0xffu) << 0;
    w[24] |= (heads & 0xffu) << 0;
    w[24] |= (in_planar & 0x1u) << 8;
    w[24] |= (in2_planar & 0x1u) << 9;
    w[24] |= (out_planar & 0x1u) << 10;
    w[24] |= (in2_transposed & 0x1u) << 11;
    w[24] |= (fuse_table & 0x1u) << 12;
    w[24] |= (fuse_dw & 0x1u) << 13;
    w[24] |= (spilled & 0x1u) << 14;
    w[24] |= (dw_pairs & 0x1u) << 16;
    w[25] |= (epsilon_lo & 0xffffffffu) << 0;
    w[26] |= (epsilon_hi & 0xffu) << 0;
    w[27] |= (mid_h & 0xffffu) << 0;
    w[27] |= (mid_w & 0xffffu) << 16;
    w[28] |= (dw_kernel_h & 0xffu) << 0;
    w[28] |= (dw_kernel_w & 0xffu) << 8;
    w[28] |= (dw_stride_y & 0xffu) << 16;
    w[28] |= (dw_stride_x & 0xffu) << 24;
    w[29] |= (dw_pad_top & 0xffu) << 0;
    w[29] |= (dw_pad_left & 0xffu) << 8;
    w[29] |= (mid_zero & 0xffu) << 16;
    w[29] |= (repeat_y & 0xfu) << 24;
    w[29] |= (repeat_x & 0xfu) << 28;
    w[30] |= (spill_page & 0xffffffffu) << 0;
    w[31] |= (out_pitch & 0x7fu) << 0;
    w[31] |= (slices & 0xffu) << 8;
    return w;
  }
  static descriptor unpack(const std::array<std::uint32_t, desc_bytes / 4>& w) {
    descriptor d;
    d.op = (w[0] >> 0) & 0xfu;
    d.page_base = (w[1] >> 0) & 0xffffffffu;
    d.region = (w[2] >> 0) & 0xffffu;
    d.param_pages = (w[2] >> 16) & 0xffffu;
    d.n_tiles = (w[3] >> 0) & 0xffffu;
    d.k_tiles = (w[3] >> 16) & 0xffffu;
    d.in_base = (w[4] >> 0) & 0xffffffffu;
    d.in_stride = (w[5] >> 0) & 0xffffffffu;
    d.in_h = (w[6] >> 0) & 0xffffu;
    d.in_w = (w[6] >> 16) & 0xffffu;
    d.in_cb = (w[7] >> 0) & 0xffffu;
    d.in_cp_log2 = (w[7] >> 16) & 0x7u;
    d.in_c_last = (w[7] >> 24) & 0x7fu;
    d.out_base = (w[8] >> 0) & 0xffffffffu;
    d.out_stride = (w[9] >> 0) & 0xffffffffu;
    d.out_h = (w[10] >> 0) & 0xffffu;
    d.out_w = (w[10] >> 16) & 0xffffu;
    d.out_cb = (w[11] >> 0) & 0xffffu;
    d.out_cp_log2 = (w[11] >> 16) & 0x7u;
    d.out_c_last = (w[11] >> 24) & 0x7fu;
    d.kernel_h = (w[12] >> 0) & 0xffu;
    d.kernel_w = (w[12] >> 8) & 0xffu;
    d.stride_y = (w[12] >> 16) & 0xffu;
    d.stride_x = (w[12] >> 24) & 0xffu;
    d.pad_top = (w[13] >> 0) & 0xffu;
    d.pad_left = (w[13] >> 8) & 0xffu;
    d.pad_value = (w[13] >> 16) & 0xffu;
    d.taps = (w[14] >> 0) & 0xffffffffu;
    d.clamp_lo = (w[15] >> 0) & 0xffu;
    d.clamp_hi = (w[15] >> 8) & 0xffu;
    d.out_zero = (w[15] >> 16) & 0xffu;
    d.in2_base = (w[16] >> 0) & 0xffffffffu;
    d.in2_stride = (w[17] >> 0) & 0xffffffffu;
    d.add_mult_a = (w[18] >> 0) & 0xffffu;
    d.add_mult_b = (w[18] >> 16) & 0xffffu;
    d.add_offset = (w[19] >> 0) & 0xffffffffu;
    d.add_shift = (w[20] >> 0) & 0x1fu;
    d.in2_negate = (w[20] >> 8) & 0x1u;
    d.in2_broadcast = (w[20] >> 9) & 0x1u;
    d.fuse_add = (w[20] >> 10) & 0x1u;
    d.mid_lo = (w[21] >> 0) & 0xffu;
    d.mid_hi = (w[21] >> 8) & 0xffu;
    d.in_zero = (w[21] >> 16) & 0xffu;
    d.in2_zero = (w[21] >> 24) & 0xffu;
    d.vec_mult = (w[22] >> 0) & 0xffffffffu;
    d.vec_shift = (w[23] >> 0) & 0xffu;
    d.heads = (w[24] >> 0) & 0xffu;
    d.in_planar = (w[24] >> 8) & 0x1u;
    d.in2_planar = (w[24] >> 9) & 0x1u;
    d.out_planar = (w[24] >> 10) & 0x1u;
    d.in2_transposed = (w[24] >> 11) & 0x1u;
    d.fuse_table = (w[24] >> 12) & 0x1u;
    d.fuse_dw = (w[24] >> 13) & 0x1u;
    d.spilled = (w[24] >> 14) & 0x1u;
    d.dw_pairs = (w[24] >> 16) & 0x1u;
    d.epsilon_lo = (w[25] >> 0) & 0xffffffffu;
    d.epsilon_hi = (w[26] >> 0) & 0xffu;
    d.mid_h = (w[27] >> 0) & 0xffffu;
    d.mid_w = (w[27] >> 16) & 0xffffu;
    d.dw_kernel_h = (w[28] >> 0) & 0xffu;
    d.dw_kernel_w = (w[28] >> 8) & 0xffu;
    d.dw_stride_y = (w[28] >> 16) & 0xffu;
    d.dw_stride_x = (w[28] >> 24) & 0xffu;
    d.dw_pad_top = (w[29] >> 0) & 0xffu;
    d.dw_pad_left = (w[29] >> 8) & 0xffu;
    d.mid_zero = (w[29] >> 16) & 0xffu;
    d.repeat_y = (w[29] >> 24) & 0xfu;
    d.repeat_x = (w[29] >> 28) & 0xfu;
    d.spill_page = (w[30] >> 0) & 0xffffffffu;
    d.out_pitch = (w[31] >> 0) & 0x7fu;
    d.slices = (w[31] >> 8) & 0xffu;
    return d;
  }
};

/// A descriptor's fields by name, in memory order.
struct descriptor_field {
  std::string_view name;
  std::uint32_t descriptor::*value;
};
inline constexpr descriptor_field descriptor_fields[] = {
    {"op", &descriptor::op},
    {"page_base", &descriptor::page_base},
    {"region", &descriptor::region},
    {"param_pages", &descriptor::param_pages},
    {"n_tiles", &descriptor::n_tiles},
    {"k_tiles", &descriptor::k_tiles},
    {"in_base", &descriptor::in_base},
    {"in_stride", &descriptor::in_stride},
    {"in_h", &descriptor::in_h},
    {"in_w", &descriptor::in_w},
    {"in_cb", &descriptor::in_cb},
    {"in_cp_log2", &descriptor::in_cp_log2},
    {"in_c_last", &descriptor::in_c_last},
    {"out_base", &descriptor::out_base},
    {"out_stride", &descriptor::out_stride},
    {"out_h", &descriptor::out_h},
    {"out_w", &descriptor::out_w},
    {"out_cb", &descriptor::out_cb},
    {"out_cp_log2", &descriptor::out_cp_log2},
    {"out_c_last", &descriptor::out_c_last},
    {"kernel_h", &descriptor::kernel_h},
    {"kernel_w", &descriptor::kernel_w},
    {"stride_y", &descriptor::stride_y},
    {"stride_x", &descriptor::stride_x},
    {"pad_top", &descriptor::pad_top},
    {"pad_left", &descriptor::pad_left},
    {"pad_value", &descriptor::pad_value},
    {"taps", &descriptor::taps},
    {"clamp_lo", &descriptor::clamp_lo},
    {"clamp_hi", &descriptor::clamp_hi},
    {"out_zero", &descriptor::out_zero},
    {"in2_base", &descriptor::in2_base},
    {"in2_stride", &descriptor::in2_stride},
    {"add_mult_a", &descriptor::add_mult_a},
    {"add_mult_b", &descriptor::add_mult_b},
    {"add_offset", &descriptor::add_offset},
    {"add_shift", &descriptor::add_shift},
    {"in2_negate", &descriptor::in2_negate},
    {"in2_broadcast", &descriptor::in2_broadcast},
    {"fuse_add", &descriptor::fuse_add},
    {"mid_lo", &descriptor::mid_lo},
    {"mid_hi", &descriptor::mid_hi},
    {"in_zero", &descriptor::in_zero},
    {"in2_zero", &descriptor::in2_zero},
    {"vec_mult", &descriptor::vec_mult},
    {"vec_shift", &descriptor::vec_shift},
    {"heads", &descriptor::heads},
    {"in_planar", &descriptor::in_planar},
    {"in2_planar", &descriptor::in2_planar},
    {"out_planar", &descriptor::out_planar},
    {"in2_transposed", &descriptor::in2_transposed},
    {"fuse_table", &descriptor::fuse_table},
    {"fuse_dw", &descriptor::fuse_dw},
    {"spilled", &descriptor::spilled},
    {"dw_pairs", &descriptor::dw_pairs},
    {"epsilon_lo", &descriptor::epsilon_lo},
    {"epsilon_hi", &descriptor::epsilon_hi},
    {"mid_h", &descriptor::mid_h},
    {"mid_w", &descriptor::mid_w},
    {"dw_kernel_h", &descriptor::dw_kernel_h},
    {"dw_kernel_w", &descriptor::dw_kernel_w},
    {"dw_stride_y", &descriptor::dw_stride_y},
    {"dw_stride_x", &descriptor::dw_stride_x},
    {"dw_pad_top", &descriptor::dw_pad_top},
    {"dw_pad_left", &descriptor::dw_pad_left},
    {"mid_zero", &descriptor::mid_zero},
    {"repeat_y", &descriptor::repeat_y},
    {"repeat_x", &descriptor::repeat_x},
    {"spill_page", &descriptor::spill_page},
    {"out_pitch", &descriptor::out_pitch},
    {"slices", &descriptor::slices},
};

/// A manifest's fields in memory order; a trivially copyable image of its 128 bytes.
struct manifest {
  std::uint32_t magic{};  ///< 'LKMF', 0x464D4B4C
  std::uint32_t format{};  ///< FormatVersion
  std::array<std::uint32_t, 4> model_id{};  ///< First 16 bytes of the SHA-256 of the package's preamble and header
  std::uint32_t version{};  ///< Version of the model, part of every IV
  std::uint32_t config_id{};  ///< CONFIG_ID of the builds that may run it
  std::array<std::uint32_t, 4> device_id{};  ///< Device that the key is wrapped for
  std::uint32_t num_pages{};  ///< Pages in all
  std::uint32_t desc_pages{};  ///< Descriptor pages, region 0
  std::uint32_t num_descs{};  ///< Descriptors, End included
  std::uint32_t lock_kinds{};  ///< Bit 0: AES-128-GCM
  std::uint32_t slot{};  ///< Owner slot of the wrapping key
  std::uint32_t epoch{};  ///< Epoch of the wrapping key
  std::uint32_t max_batch{};  ///< Most images of one run
  std::uint32_t licence_flags{};  ///< Bit 0: loads only under a ticket of its owner slot; others zero
  std::array<std::uint32_t, 2> expiry{};  ///< None defined: zero
  std::uint32_t input_words{};  ///< Input words per image
  std::uint32_t output_words{};  ///< Output words per image
  std::uint32_t spill_pages{};  ///< Pages of the spill area that a run of max_batch images needs; 0: the program spills nothing
  std::array<std::uint32_t, 7> reserved{};  ///< Zero
};
static_assert(sizeof(manifest) == 4 * manifest_words);

/// CONFIG_ID: FNV-1a over format, array size and scratchpad words, each as one 32-bit step.
constexpr std::uint32_t config_id(std::uint32_t array_n, std::uint32_t scratchpad_words) {
  std::uint32_t h = 0x811c9dc5u;
  for (std::uint32_t v : {std::uint32_t{format_version}, array_n, scratchpad_words})
    h = (h ^ v) * 0x01000193u;
  return h;
}

}  // namespace latchkey::spec
