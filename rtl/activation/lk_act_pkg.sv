// Types that the modules of rtl/activation share: the checked geometry of a layer, the command of a
// sweep and the command of a finished output tile. Addresses are byte addresses of the scratchpad,
// modulo 2^32 (a module keeps the bits that its scratchpad needs: padding makes an address leave
// the tensor, and such an address is never used).
package lk_act_pkg;
  // How the feed walks: one word per row (a block of channels is at least as wide as the array),
  // gathering several taps into a row, or one window tap at a time for the vector unit.
  typedef enum logic [1:0] {
    ModeDirect = 2'd0,
    ModeGather = 2'd1,
    ModeWindow = 2'd2
  } feed_mode_e;

  // What lk_setup derives from a legal descriptor; stable while the operation runs.
  typedef struct packed {
    feed_mode_e  mode;
    logic [15:0] in_h;
    logic [15:0] in_w;
    logic [6:0]  in_cb;      // channel blocks of a pixel, 1..64
    logic [2:0]  in_cp;      // log2 of the bytes of a block
    logic [6:0]  in_c_last;  // real channels of the last block
    logic [12:0] in_pitch;   // bytes from pixel to pixel
    logic [31:0] in_line;    // bytes of a row of pixels
    logic [31:0] in_step;    // bytes from image to image
    logic [31:0] in_start;   // tap (0, 0) of output pixel (0, 0) of image 0
    logic        in_planar;  // blocks lie in_block bytes apart, else one behind the other
    logic [31:0] in_block;
    logic [31:0] step_x;     // bytes from one window to the next in a row
    logic [31:0] step_y;     // bytes from one row of windows to the next
    logic [7:0]  stride_x;
    logic [7:0]  stride_y;
    logic [3:0]  again_y;    // times that a row of windows is walked again, and a window of it
    logic [3:0]  again_x;
    logic [7:0]  pad_top;
    logic [7:0]  pad_left;
    logic [7:0]  pad_value;
    logic [7:0]  kernel_w;
    logic [15:0] window;     // kernel_h * kernel_w
    logic        pace;       // windows: a tap every fourth cycle only
    logic [22:0] taps;       // window * in_cb
    logic [15:0] out_h;
    logic [15:0] out_w;
    logic [31:0] out_pixels; // out_h * out_w
    logic [22:0] rows;       // images * out_h * out_w
    logic [15:0] images;     // of the batch; Product: heads of the batch; MatMul: slices of it
    logic [6:0]  out_cb;
    logic [2:0]  out_cp;
    logic [6:0]  out_c_last;
    logic [12:0] out_pitch;  // bytes from pixel to pixel
    logic [31:0] out_block;  // bytes from block to block
    logic [31:0] out_start;
    logic [31:0] out_step;
    logic [31:0] out_words;  // words of an output image
    logic [31:0] in_total;   // images * in_stride, in words
    logic [31:0] out_total;  // images * out_stride, in words
    logic [15:0] k_tiles;
    logic        lanes;      // gather: a slice has no more runs than lk_gather has lanes
    logic        fuse;       // MatMul: the tensor at in2_start is added to the results
    logic [31:0] in2_start;
    logic [31:0] in2_step;
    logic        fuse_dw;    // MatMul: results go to lk_depthwise; n is the outermost loop
    logic        product;    // the tensor at in2_start is the weights
    logic        b_transposed;
    logic        b_planar;
    logic [12:0] b_pixels;   // of a head of it
    logic [6:0]  b_blocks;
    logic [6:0]  b_c_last;
  } geom_t;

  // One sweep of the feed: rows of one slice of K, or one channel block of a max-pool.
  typedef struct packed {
    logic        new_block;  // continue behind the rows of the last sweep, else repeat them
    logic        restart;    // from the first row of all
    logic [22:0] rows;
    logic [7:0]  ky;         // first tap
    logic [7:0]  kx;
    logic [31:0] row_off;    // ky * in_line
    logic [31:0] x_off;      // direct and window: bytes behind the first byte of the kernel row
    logic [15:0] taps;       // gather and window: taps of a row
    logic [6:0]  kvalid;     // real k bytes of a row
  } sweep_t;

  // One run of a gathered row: taps of one kernel row that follow each other.
  typedef struct packed {
    logic        on;
    logic [7:0]  ky;
    logic [7:0]  kx;       // first tap
    logic [8:0]  kx_end;   // behind the last
    logic [31:0] row_off;  // ky * in_line
    logic [5:0]  dst;      // byte of the row
  } run_t;

  // Lanes of lk_gather: enough for kernels of 7 x 7 with one channel at ArrayN = 64.
  function automatic int unsigned gather_lanes(input int unsigned array_n);
    return array_n == 16 ? 4 : 8;
  endfunction

  // One finished tile of outputs: rows x up to 64 channels.
  typedef struct packed {
    logic        new_block;
    logic [22:0] rows;
    logic [5:0]  n;          // channel block, 64 channels each
    logic [2:0]  groups;     // groups of ArrayN channels, 1..64/ArrayN
  } tile_t;
endpackage
