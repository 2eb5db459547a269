// Second tensor of a Product as weights: reads 64 words of it per tile through the second read port
// of the scratchpad and gives them in a page's order of beats, so that lk_matmul cannot tell them
// from a page. For image in images, for each block of up to AccRows rows, for n, for k: a tile.
//
// A word holds 64 channels of one pixel. Transposed, K runs along the channels and the tile's word
// i is pixel 64 * n + i, channel block k; otherwise K runs along the pixels and it is pixel
// 64 * k + i, block n. Pixels and channels that the tensor has not got count as zero, so that the
// rest of the last slice of K adds nothing; a byte of -128, which the array cannot hold, as -127.
//
// Two tiles of 64 banks of 64 bytes: one fills while the other is read. Byte d of word i lies in
// bank d ^ reverse(i) (six bits, reversed), at address i. So the 64 bytes of a word and the 64
// bytes of any beat, rows or columns of the tile, lie in 64 banks, and one network of exchanges, a
// stage per bit, brings them into order. The banks are meant to become distributed RAM.
//
// clear_i drops everything; wipe_i zeroes the banks and must stay for 128 cycles.
module lk_operand #(
  parameter int unsigned ArrayN      = 16,
  parameter int unsigned SpadWords   = lk_pkg::SpadWords,
  parameter int unsigned ReadLatency = 2,
  localparam int unsigned Ww         = $clog2(SpadWords)
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              clear_i,
  input  logic              wipe_i,
  input  logic              start_i,    // of a layer whose geom_i.product is set
  // verilator lint_off UNUSEDSIGNAL
  input  lk_act_pkg::geom_t geom_i,
  // verilator lint_on UNUSEDSIGNAL
  // second read port of the scratchpad
  output logic              rd_en_o,
  input  logic              rd_gnt_i,
  output logic [Ww-1:0]     rd_addr_o,
  input  logic [511:0]      rd_data_i,  // ReadLatency cycles after the grant
  // beats, 64 of a tile
  output logic              wt_valid_o,
  input  logic              wt_ready_i,
  output logic [511:0]      wt_data_o,
  output logic              wt_last_o   // the tile's last beat
);
  localparam int unsigned LogN = $clog2(ArrayN);
  localparam int unsigned Hi   = 6 - LogN;  // bits of a subtile's number along one side
  typedef logic [Ww-1:0] addr_t;

  function automatic logic [5:0] reverse(input logic [5:0] v);
    return {v[0], v[1], v[2], v[3], v[4], v[5]};
  endfunction

  // Byte b of the result is byte b ^ key of the word.
  function automatic logic [511:0] exchange(input logic [511:0] w, input logic [5:0] key);
    logic [511:0] now, next;
    now = w;
    for (int unsigned s = 0; s < 6; s++) begin
      for (int unsigned b = 0; b < 64; b++) begin
        next[8*b +: 8] = now[8*(key[s] ? b ^ (1 << s) : b) +: 8];
      end
      now = next;
    end
    return now;
  endfunction

  // Channels from count on count as zero, -128 as -127.
  function automatic logic [511:0] legal(input logic [511:0] w, input logic [6:0] count);
    logic [511:0] y;
    for (int unsigned b = 0; b < 64; b++) begin
      y[8*b +: 8] = 7'(b) >= count ? 8'h00 : w[8*b +: 8] == 8'h80 ? 8'h81 : w[8*b +: 8];
    end
    return y;
  endfunction

  // Byte {high, low} of a beat, from the bytes of the banks after their exchange.
  function automatic logic [511:0] ordered(input logic [511:0] w, input logic transposed);
    logic [511:0] y;
    for (int unsigned j = 0; j < 64; j++) begin
      y[8*j +: 8] = w[8*(transposed ? reverse(6'(j % ArrayN)) | 6'(j / ArrayN)
                                    : reverse(6'(j / ArrayN)) | 6'(j % ArrayN)) +: 8];
    end
    return y;
  endfunction

  // ---- Tiles to read ----
  typedef enum logic [1:0] {StIdle, StTile, StRead} state_e;
  state_e      state_q;
  logic [15:0] images_q;     // left, this one included
  logic [22:0] rows_q;       // of the image, left
  logic [5:0]  n_q, i_q;
  logic [6:0]  k_q, p, q;    // p: block of pixels, q: block of channels
  addr_t       img_q, addr_q, pitch;
  logic        half_q;       // the half that is filled
  logic [1:0]  full_q;       // halves that hold a whole tile
  logic [12:0] pixel;
  logic        n_last, k_last, real_pixel, step;

  assign p          = geom_i.b_transposed ? 7'(n_q) : k_q;
  assign q          = geom_i.b_transposed ? k_q : 7'(n_q);
  assign n_last     = 7'(n_q) == geom_i.out_cb - 7'd1;
  assign k_last     = 16'(k_q) == geom_i.k_tiles - 16'd1;
  assign pixel      = {p, i_q};
  assign real_pixel = pixel < geom_i.b_pixels;
  assign pitch      = geom_i.b_planar ? addr_t'(1) : addr_t'(geom_i.b_blocks);
  assign rd_en_o    = state_q == StRead && real_pixel && !clear_i;
  assign rd_addr_o  = addr_q;
  assign step       = state_q == StRead && (!real_pixel || rd_gnt_i);

  logic last_rows;
  assign last_rows = rows_q <= 23'(lk_pkg::AccRows);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q  <= StIdle;
      half_q   <= 1'b0;
      i_q      <= '0;
      n_q      <= '0;
      k_q      <= '0;
      images_q <= '0;
      rows_q   <= '0;
    end else if (clear_i) begin
      state_q <= StIdle;
      half_q  <= 1'b0;
    end else begin
      unique case (state_q)
        StIdle: if (start_i) begin
          state_q  <= StTile;
          i_q      <= '0;
          n_q      <= '0;
          k_q      <= '0;
          images_q <= geom_i.images;
          rows_q   <= geom_i.out_pixels[22:0];
        end
        StTile: if (!full_q[half_q]) state_q <= StRead;
        StRead: if (step) begin
          i_q <= i_q + 1'b1;
          if (i_q == '1) begin
            half_q  <= !half_q;
            state_q <= StTile;
            k_q     <= k_last ? '0 : k_q + 1'b1;
            if (k_last) begin
              n_q <= n_last ? '0 : n_q + 1'b1;
              if (n_last) begin
                rows_q <= last_rows ? geom_i.out_pixels[22:0] : rows_q - 23'(lk_pkg::AccRows);
                if (last_rows) begin
                  images_q <= images_q - 1'b1;
                  if (images_q == 16'd1) state_q <= StIdle;
                end
              end
            end
          end
        end
        default: state_q <= StIdle;
      endcase
    end
  end

  // First word of a tile: image, 64 p pixels, q blocks.
  always_ff @(posedge clk_i) begin
    if (start_i) begin
      img_q <= addr_t'(geom_i.in2_start >> 6);
    end else if (step && i_q == '1 && k_last && n_last && last_rows) begin
      img_q <= img_q + addr_t'(geom_i.in2_step >> 6);
    end
    if (state_q == StTile) begin
      addr_q <= img_q + addr_t'({p[5:0], 6'd0}) * pitch +
                (geom_i.b_planar ? addr_t'(q) * addr_t'(geom_i.b_pixels) : addr_t'(q));
    end else if (step) begin
      addr_q <= addr_q + pitch;
    end
  end

  // ---- Words that arrive ----
  typedef struct packed {
    logic       half;
    logic [5:0] word;
    logic       on;     // a pixel of the tensor
    logic       cut;    // its last block of channels
    logic       last;
  } meta_t;
  logic [ReadLatency-1:0] in_valid_q;
  meta_t                  in_q [ReadLatency];
  meta_t                  in;
  logic                   fill;
  logic [511:0]           word;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) in_valid_q <= '0;
    else if (clear_i || wipe_i) in_valid_q <= '0;
    else in_valid_q <= {in_valid_q[ReadLatency-2:0], step};
  end
  always_ff @(posedge clk_i) begin
    if (step || in_valid_q != '0) begin
      in_q[0] <= '{half: half_q, word: i_q, on: real_pixel,
                   cut: q == geom_i.b_blocks - 7'd1, last: i_q == '1};
      for (int unsigned s = 1; s < ReadLatency; s++) in_q[s] <= in_q[s-1];
    end
  end

  assign in   = in_q[ReadLatency-1];
  assign fill = in_valid_q[ReadLatency-1];
  always_comb begin
    word = '0;
    if (fill && in.on) word = legal(rd_data_i, in.cut ? geom_i.b_c_last : 7'd64);
  end

  // ---- Banks ----
  logic         out_half_q;
  logic [5:0]   beat_q;
  logic         out_en, read, read_last;
  logic [511:0] placed, banks;
  logic [6:0]   wipe_walk_q;

  always_comb begin
    placed = '0;
    if (fill) placed = exchange(word, reverse(in.word));
  end

  // SEC_CM: OPERAND.WIPE
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) wipe_walk_q <= '0;
    else if (wipe_i) wipe_walk_q <= wipe_walk_q + 1'b1;
    else wipe_walk_q <= '0;
  end

  // A beat holds rows {row, 0..}, columns {ni, 0..} of the tile; beats of a subtile follow each
  // other, then ni, then the subtile's row ki, which is the upper part of row.
  logic [LogN-1:0] row;
  logic [5:0]      ni_bits;
  if (ArrayN == 64) begin : gen_beat64
    assign row     = beat_q;
    assign ni_bits = '0;
  end else begin : gen_beat
    assign row     = {beat_q[5 -: Hi], beat_q[LogN-Hi-1:0]};
    assign ni_bits = 6'(beat_q[LogN-1 -: Hi]);
  end

  // Transposed, byte (k, n) is byte k of word n; K is {row, high}, n is {ni, low} for byte
  // {high, low} of the beat: its bank is {row ^ reverse(low), high ^ reverse(ni)}. Otherwise it is
  // byte n of word k, in bank {ni ^ reverse(high), low ^ reverse(row)}.
  logic [5:0] key;
  assign key = geom_i.b_transposed ? 6'(row) << Hi | reverse(ni_bits) >> LogN
                                   : ni_bits << LogN | reverse(6'(row)) >> Hi;

  for (genvar b = 0; b < 64; b++) begin : gen_bank
    logic [5:0] at, mixed;
    assign mixed = 6'(b) ^ key;
    if (ArrayN == 64) begin : gen_at64
      assign at = geom_i.b_transposed ? reverse(mixed) : row;
    end else begin : gen_at
      // The word's low bits, of the upper bits of the bank.
      logic [5:0] turned;
      assign turned = reverse(mixed);
      assign at = geom_i.b_transposed ? {ni_bits[Hi-1:0], turned[LogN-1:0]}
                                      : {row, turned[Hi-1:0]};
    end

    (* ram_style = "distributed" *) logic [7:0] mem [128];
    always_ff @(posedge clk_i) begin
      if (wipe_i) mem[wipe_walk_q] <= '0;
      else if (fill) mem[{in.half, in.word}] <= placed[8*b +: 8];
    end
    always_comb begin
      banks[8*b +: 8] = '0;
      if (read) banks[8*b +: 8] = mem[{out_half_q, at}];
    end
  end

  // ---- Beats ----
  logic         v1_q, last1_q;
  logic [5:0]   key_q;
  logic [511:0] banks_q, sorted;

  assign out_en    = !wt_valid_o || wt_ready_i;
  assign read      = full_q[out_half_q] && out_en;
  assign read_last = read && beat_q == '1;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      full_q     <= '0;
      out_half_q <= 1'b0;
      beat_q     <= '0;
      v1_q       <= 1'b0;
      wt_valid_o <= 1'b0;
    end else if (clear_i || wipe_i) begin
      full_q     <= '0;
      out_half_q <= 1'b0;
      beat_q     <= '0;
      v1_q       <= 1'b0;
      wt_valid_o <= 1'b0;
    end else begin
      if (fill && in.last) full_q[in.half] <= 1'b1;
      if (read) beat_q <= beat_q + 1'b1;
      if (read_last) begin
        full_q[out_half_q] <= 1'b0;
        out_half_q         <= !out_half_q;
      end
      if (out_en) begin
        v1_q       <= read;
        wt_valid_o <= v1_q;
      end
    end
  end

  always_comb begin
    sorted = '0;
    if (v1_q) sorted = ordered(exchange(banks_q, key_q), geom_i.b_transposed);
  end

  // SEC_CM: OPERAND.WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      banks_q   <= '0;
      wt_data_o <= '0;
    end else if (out_en) begin
      if (read) begin
        banks_q <= banks;
        key_q   <= key;
        last1_q <= beat_q == '1;
      end
      if (v1_q) begin
        wt_data_o <= sorted;
        wt_last_o <= last1_q;
      end
    end
  end
endmodule
