// Generated from spec/latchkey.json by spec/generate.py; do not edit.
// A package serves modules that use a part of it.
// verilator lint_off UNUSEDPARAM
package lk_pkg;
  // Bytes of a page: the unit of fetching, encryption and authentication, one maximal AXI4 burst.
  localparam int unsigned PageBytes = 4096;
  // Bytes of a memory beat, of an AXI-Stream beat and of a scratchpad word.
  localparam int unsigned BeatBytes = 64;
  // Beats of a page.
  localparam int unsigned PageBeats = 64;
  // Rows (K) and columns (output channels) of a weight tile; a page holds one tile.
  localparam int unsigned TileDim = 64;
  // Bytes of a page's tag in the tag table.
  localparam int unsigned TagBytes = 16;
  // Bytes of a descriptor.
  localparam int unsigned DescBytes = 128;
  // Descriptors that the descriptor RAM holds.
  localparam int unsigned MaxDescs = 512;
  // Bytes of one output channel's parameters in a parameter page.
  localparam int unsigned ParamBytes = 16;
  // Output channels of a parameter page.
  localparam int unsigned ParamsPerPage = 256;
  // Output channels of a layer that the parameter RAM holds.
  localparam int unsigned MaxChannels = 4096;
  // Rows of one of the two accumulator banks: the longest sweep over one weight tile.
  localparam int unsigned AccRows = 512;
  // 64-byte words of the activation scratchpad (default: 4 MiB).
  localparam int unsigned SpadWords = 65536;
  // The same of the 64 x 64 card images (8 MiB).
  localparam int unsigned SpadWordsN64 = 131072;
  // Pages that a program may spill to card memory (16 MiB); their tags stay on chip.
  localparam int unsigned MaxSpillPages = 4096;
  // Pages that the verify-before-use ring holds.
  localparam int unsigned RingSlots = 8;
  // 64-byte words of an image or result that the input and output adapters buffer (1 MiB).
  localparam int unsigned AdapterWords = 16384;
  // 32-bit words of the helper data.
  localparam int unsigned HelperWords = 272;
  // 32-bit words of a manifest.
  localparam int unsigned ManifestWords = 32;
  // 32-bit words of a wrapped model key.
  localparam int unsigned BlobWords = 14;
  // Owner slots of a chip, 0..7.
  localparam int unsigned OwnerSlots = 8;
  // Version of the descriptor, page, manifest and helper formats.
  localparam int unsigned FormatVersion = 1;
  // Version of the project: major << 16 | minor << 8 | patch.
  localparam logic [31:0] BuildVersion = 32'h00000100;

  // Operation of a descriptor.
  typedef enum logic [3:0] {
    OpInput = 4'd1,
    OpMatMul = 4'd2,
    OpMaxPool = 4'd3,
    OpAdd = 4'd4,
    OpDepthwise = 4'd6,
    OpAvgPool = 4'd7,
    OpMul = 4'd8,
    OpTable = 4'd9,
    OpProduct = 4'd10,
    OpSoftmax = 4'd11,
    OpLayerNorm = 4'd12,
    OpLoad = 4'd13,
    OpSpill = 4'd14,
    OpOutput = 4'd5,
    OpEnd = 4'd15
  } op_e;

  // Commands of CMD.
  typedef enum logic [3:0] {
    CmdStart = 4'd1,
    CmdUnwrap = 4'd2,
    CmdZeroise = 4'd3,
    CmdEnrol = 4'd4,
    CmdKekTaken = 4'd5,
    CmdAttest = 4'd6,
    CmdNonce = 4'd7,
    CmdTicket = 4'd8
  } cmd_e;

  // Public state of the key block (KEY_STATE).
  typedef enum logic [3:0] {
    KeyStateIdle = 4'd0,
    KeyStateBusy = 4'd1,
    KeyStateStarted = 4'd2,
    KeyStateKeyLoaded = 4'd3,
    KeyStateFailed = 4'd4,
    KeyStateLocked = 4'd5
  } key_state_e;

  // Reason of the key block (KEY_ERR).
  typedef enum logic [7:0] {
    KeyErrNone = 8'd0,
    KeyErrIllegalCommand = 8'd1,
    KeyErrHelperMalformed = 8'd2,
    KeyErrKeyFailure = 8'd3,
    KeyErrManifestMalformed = 8'd4,
    KeyErrConfigMismatch = 8'd5,
    KeyErrVersionTooOld = 8'd6,
    KeyErrLifeCycle = 8'd7,
    KeyErrLockedOut = 8'd8,
    KeyErrDeviceMismatch = 8'd9,
    KeyErrPufHealth = 8'd10,
    KeyErrPageTampered = 8'd11,
    KeyErrAlreadyEnrolled = 8'd12,
    KeyErrTooFewReliable = 8'd13,
    KeyErrEpochTooOld = 8'd14,
    KeyErrTicketRequired = 8'd15,
    KeyErrTicketStale = 8'd16,
    KeyErrTicketExpired = 8'd17,
    KeyErrMessageMalformed = 8'd18,
    KeyErrSlot = 8'd19
  } key_err_e;

  // Result of the last run (RUN_STATUS).
  typedef enum logic [7:0] {
    RunStatusOk = 8'd0,
    RunStatusNoKey = 8'd1,
    RunStatusPageTampered = 8'd2,
    RunStatusBadDescriptor = 8'd3,
    RunStatusBusError = 8'd4,
    RunStatusBadBatch = 8'd5,
    RunStatusBadInput = 8'd6,
    RunStatusWiped = 8'd7,
    RunStatusSpillTampered = 8'd8,
    RunStatusNoRunKey = 8'd9
  } run_status_e;

  // Byte offsets of the registers on AXI-Lite.
  localparam logic [15:0] RegApCtrl = 16'h0000;
  localparam logic [15:0] RegGier = 16'h0004;
  localparam logic [15:0] RegIpIer = 16'h0008;
  localparam logic [15:0] RegIpIsr = 16'h000c;
  localparam logic [15:0] RegPagesAddrLo = 16'h0010;
  localparam logic [15:0] RegPagesAddrHi = 16'h0014;
  localparam logic [15:0] RegTagsAddrLo = 16'h001c;
  localparam logic [15:0] RegTagsAddrHi = 16'h0020;
  localparam logic [15:0] RegSpillAddrLo = 16'h0030;
  localparam logic [15:0] RegSpillAddrHi = 16'h0034;
  localparam logic [15:0] RegBatch = 16'h0028;
  localparam logic [15:0] RegCmd = 16'h0040;
  localparam logic [15:0] RegKeyState = 16'h0044;
  localparam logic [15:0] RegKeyErr = 16'h0048;
  localparam logic [15:0] RegRunStatus = 16'h004c;
  localparam logic [15:0] RegFailPage = 16'h0050;
  localparam logic [15:0] RegMinVersion = 16'h0054;
  localparam logic [15:0] RegLcState = 16'h0058;
  localparam logic [15:0] RegStartCycles = 16'h005c;
  localparam logic [15:0] RegHelperIn = 16'h0060;
  localparam logic [15:0] RegManifestIn = 16'h0064;
  localparam logic [15:0] RegBlobIn = 16'h0068;
  localparam logic [15:0] RegFillClear = 16'h006c;
  localparam logic [15:0] RegUnstable = 16'h0070;
  localparam logic [15:0] RegSlot = 16'h0074;
  localparam logic [15:0] RegSlots = 16'h0078;
  localparam logic [15:0] RegMargin = 16'h007c;
  localparam logic [15:0] RegBuildMagic = 16'h0080;
  localparam logic [15:0] RegBuildFlags = 16'h0084;
  localparam logic [15:0] RegConfigId = 16'h0088;
  localparam logic [15:0] RegArrayN = 16'h008c;
  localparam logic [15:0] RegSpadWords = 16'h0090;
  localparam logic [15:0] RegBuildVersion = 16'h0094;
  localparam logic [15:0] RegSetupCycles = 16'h009c;
  localparam logic [15:0] RegBuildHash = 16'h0098;
  localparam logic [15:0] RegAttestOut = 16'h00a0;
  localparam logic [15:0] RegNonceOut = 16'h00c0;
  localparam logic [15:0] RegMsgIn = 16'h00d0;
  localparam logic [15:0] RegFloorVersion = 16'h00d4;
  localparam logic [15:0] RegFloorEpoch = 16'h00d8;
  localparam logic [15:0] RegRunsLeft = 16'h00dc;
  localparam logic [15:0] RegTimeLeft = 16'h00e0;
  localparam logic [15:0] RegCounters = 16'h0100;
  localparam logic [15:0] RegHelperOut = 16'h0800;
  localparam logic [15:0] RegKekOut = 16'h1000;
  localparam logic [15:0] RegLayerCycles = 16'h2000;

  // Index of each counter; COUNTERS + 8 * index is its low word.
  localparam int unsigned NumCounters = 14;
  localparam int unsigned CounterCycles = 0;
  localparam int unsigned CounterArrayBusy = 1;
  localparam int unsigned CounterWaitMemory = 2;
  localparam int unsigned CounterWaitDecrypt = 3;
  localparam int unsigned CounterWaitLoad = 4;
  localparam int unsigned CounterWaitActivations = 5;
  localparam int unsigned CounterWaitPost = 6;
  localparam int unsigned CounterVector = 7;
  localparam int unsigned CounterInput = 8;
  localparam int unsigned CounterOutput = 9;
  localparam int unsigned CounterControl = 10;
  localparam int unsigned CounterMacs = 11;
  localparam int unsigned CounterPages = 12;
  localparam int unsigned CounterBeats = 13;

  // A descriptor as it lies in memory, packed so that bit 32 * word + lsb of the 1,024 bits
  // is the field's bit 0. The last field here is word 0.
  typedef struct packed {
    logic [15:0] reserved0;
    logic [7:0] slices;
    logic [0:0] reserved1;
    logic [6:0] out_pitch;
    logic [31:0] spill_page;
    logic [3:0] repeat_x;
    logic [3:0] repeat_y;
    logic [7:0] mid_zero;
    logic [7:0] dw_pad_left;
    logic [7:0] dw_pad_top;
    logic [7:0] dw_stride_x;
    logic [7:0] dw_stride_y;
    logic [7:0] dw_kernel_w;
    logic [7:0] dw_kernel_h;
    logic [15:0] mid_w;
    logic [15:0] mid_h;
    logic [23:0] reserved2;
    logic [7:0] epsilon_hi;
    logic [31:0] epsilon_lo;
    logic [14:0] reserved3;
    logic [0:0] dw_pairs;
    logic [0:0] reserved4;
    logic [0:0] spilled;
    logic [0:0] fuse_dw;
    logic [0:0] fuse_table;
    logic [0:0] in2_transposed;
    logic [0:0] out_planar;
    logic [0:0] in2_planar;
    logic [0:0] in_planar;
    logic [7:0] heads;
    logic [23:0] reserved5;
    logic [7:0] vec_shift;
    logic [31:0] vec_mult;
    logic [7:0] in2_zero;
    logic [7:0] in_zero;
    logic [7:0] mid_hi;
    logic [7:0] mid_lo;
    logic [20:0] reserved6;
    logic [0:0] fuse_add;
    logic [0:0] in2_broadcast;
    logic [0:0] in2_negate;
    logic [2:0] reserved7;
    logic [4:0] add_shift;
    logic [31:0] add_offset;
    logic [15:0] add_mult_b;
    logic [15:0] add_mult_a;
    logic [31:0] in2_stride;
    logic [31:0] in2_base;
    logic [7:0] reserved8;
    logic [7:0] out_zero;
    logic [7:0] clamp_hi;
    logic [7:0] clamp_lo;
    logic [31:0] taps;
    logic [7:0] reserved9;
    logic [7:0] pad_value;
    logic [7:0] pad_left;
    logic [7:0] pad_top;
    logic [7:0] stride_x;
    logic [7:0] stride_y;
    logic [7:0] kernel_w;
    logic [7:0] kernel_h;
    logic [0:0] reserved10;
    logic [6:0] out_c_last;
    logic [4:0] reserved11;
    logic [2:0] out_cp_log2;
    logic [15:0] out_cb;
    logic [15:0] out_w;
    logic [15:0] out_h;
    logic [31:0] out_stride;
    logic [31:0] out_base;
    logic [0:0] reserved12;
    logic [6:0] in_c_last;
    logic [4:0] reserved13;
    logic [2:0] in_cp_log2;
    logic [15:0] in_cb;
    logic [15:0] in_w;
    logic [15:0] in_h;
    logic [31:0] in_stride;
    logic [31:0] in_base;
    logic [15:0] k_tiles;
    logic [15:0] n_tiles;
    logic [15:0] param_pages;
    logic [15:0] region;
    logic [31:0] page_base;
    logic [27:0] reserved14;
    op_e op;
  } desc_t;

  // A manifest as it lies in memory; the last field here is word 0.
  typedef struct packed {
    logic [223:0] reserved;
    logic [31:0] spill_pages;
    logic [31:0] output_words;
    logic [31:0] input_words;
    logic [63:0] expiry;
    logic [31:0] licence_flags;
    logic [31:0] max_batch;
    logic [31:0] epoch;
    logic [31:0] slot;
    logic [31:0] lock_kinds;
    logic [31:0] num_descs;
    logic [31:0] desc_pages;
    logic [31:0] num_pages;
    logic [127:0] device_id;
    logic [31:0] config_id;
    logic [31:0] version;
    logic [127:0] model_id;
    logic [31:0] format;
    logic [31:0] magic;
  } manifest_t;

  // CONFIG_ID: what a package and a build must agree on. FNV-1a over format, array size and
  // scratchpad words, each as one 32-bit step; host twin: config_id() in latchkey_spec.hpp.
  function automatic logic [31:0] config_id(input logic [31:0] array_n,
                                            input logic [31:0] spad_words);
    logic [31:0] h;
    h = 32'h811c9dc5;
    h = (h ^ 32'(FormatVersion)) * 32'h01000193;
    h = (h ^ array_n) * 32'h01000193;
    h = (h ^ spad_words) * 32'h01000193;
    return h;
  endfunction
endpackage
// verilator lint_on UNUSEDPARAM
