// Mover: the operations that go through tensors word by word.
//   Input:  batch * out_stride words of the input stream to out_base and on (image i starts at
//           base + i * stride and takes stride words, so all images are one run of words).
//   Output, Spill: batch * in_stride words from in_base on to the output stream; tlast on the last.
//   Load: as Input, from pages; with spilled for the whole batch, else one image. What is left of
//           the last page is dropped.
//   Add, Mul, Table: words of two tensors, or one, to the vector unit and its results back, image
//           by image: 2, 4 and 1 cycles a word. With in2_broadcast the second tensor has one pixel,
//           which is read again for every pixel of the first; a block narrower than a word is
//           repeated over the word.
// start_i begins, done_o is a pulse when everything has been written or sent; bad_o with it.
// Input: tlast must come with the last word and only then. A stream that ends early or does not end
// is refused at once, with bad_o; swallowing the rest of it is the caller's part.
module lk_mover #(
  parameter int unsigned SpadWords   = lk_pkg::SpadWords,
  parameter int unsigned ReadLatency = 2,
  localparam int unsigned Ww         = $clog2(SpadWords)
) (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              clear_i,
  input  logic              wipe_i,
  input  logic              start_i,
  input  lk_pkg::desc_t     desc_i,
  input  logic [15:0]       batch_i,
  input  lk_act_pkg::geom_t geom_i,
  output logic              done_o,
  output logic              bad_o,
  // streams
  input  logic              in_valid_i,
  output logic              in_ready_o,
  input  logic [511:0]      in_data_i,
  input  logic              in_last_i,
  output logic              out_valid_o,
  input  logic              out_ready_i,
  output logic [511:0]      out_data_o,
  output logic              out_last_o,
  output logic              out_held_o,  // what out_valid_o says, by a count of its own
  // scratchpad
  output logic              rd_en_o,
  output logic [Ww-1:0]     rd_addr_o,
  input  logic [511:0]      rd_data_i,
  output logic              wr_en_o,
  output logic [Ww-1:0]     wr_addr_o,
  output logic [511:0]      wr_data_o,
  // vector unit
  output logic              word_valid_o,
  output logic [511:0]      word_a_o,
  output logic [511:0]      word_b_o,
  input  logic              word_valid_i,
  input  logic [511:0]      word_data_i
);
  import lk_pkg::*;

  localparam int unsigned Depth = 8;
  localparam int unsigned Cw    = $clog2(Depth) + 1;
  typedef logic [Ww-1:0] word_t;

  typedef enum logic [2:0] {StIdle, StInput, StOutput, StWords, StRest, StDone} state_e;
  state_e      state_q;
  logic        bad_q;
  logic [31:0] left_q;    // words left: to take, to read, or of the image
  logic [15:0] images_q;  // words: images left, this one included
  word_t       a_img_q, b_img_q, y_img_q, a_q, b_q, y_q;
  logic [6:0]  block_q;   // channel block of the pixel that b_q points to
  logic [1:0]  phase_q;   // words: 0 reads a, 1 reads b

  logic       two;        // there is a second tensor
  logic [1:0] phase_last;
  assign two = desc_i.op == OpAdd || desc_i.op == OpMul;
  always_comb begin
    unique case (desc_i.op)
      OpAdd:   phase_last = 2'd1;
      OpMul:   phase_last = 2'd3;
      default: phase_last = 2'd0;
    endcase
  end

  // ---- Reads in flight ----
  typedef enum logic [1:0] {RdOut, RdOutLast, RdA, RdB} rd_e;
  logic [ReadLatency-1:0] rd_valid_q;
  rd_e                    rd_tag_q [ReadLatency];
  rd_e                    rd_tag;
  logic                   rd_done;
  rd_e                    rd_done_tag;
  logic [Cw-1:0]          cred_q;  // output words between read and stream
  logic                   out_issue, word_issue, word_next, pop;

  assign out_issue  = state_q == StOutput && left_q != '0 && cred_q != Cw'(Depth);
  assign word_issue = state_q == StWords && images_q != '0 && !phase_q[1];
  assign word_next  = word_issue && phase_q[0] == two;
  assign rd_en_o    = out_issue || word_issue;
  assign rd_addr_o  = (word_issue && phase_q[0]) ? b_q : a_q;
  always_comb begin
    rd_tag = left_q == 32'd1 ? RdOutLast : RdOut;
    if (word_issue) rd_tag = phase_q[0] ? RdB : RdA;
  end
  assign rd_done     = rd_valid_q[ReadLatency-1];
  assign rd_done_tag = rd_tag_q[ReadLatency-1];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) rd_valid_q <= '0;
    else if (clear_i || wipe_i) rd_valid_q <= '0;
    else rd_valid_q <= ReadLatency'({rd_valid_q, rd_en_o});
  end
  for (genvar i = 0; i < ReadLatency; i++) begin : gen_tag
    always_ff @(posedge clk_i) rd_tag_q[i] <= (i == 0) ? rd_tag : rd_tag_q[(i == 0) ? 0 : i-1];
  end

  // ---- Output stream ----
  logic out_push;
  assign out_push = rd_done && (rd_done_tag == RdOut || rd_done_tag == RdOutLast);
  lk_wipe_fifo #(
    .Width(513),
    .Depth(Depth)
  ) u_out (
    .clk_i,
    .rst_ni,
    .clear_i,
    .wipe_i,
    .push_i (out_push),
    .data_i ({rd_done_tag == RdOutLast, rd_data_i}),
    .valid_o(out_valid_o),
    .ready_i(out_ready_i && out_held_o),
    .data_o ({out_last_o, out_data_o})
  );
  assign pop = out_valid_o && out_held_o && out_ready_i;

  logic [Cw-1:0] held_q;
  assign out_held_o = held_q != '0;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) held_q <= '0;
    else if (clear_i || wipe_i) held_q <= '0;
    else held_q <= held_q + Cw'(out_push) - Cw'(pop);
  end

  // ---- Words to the vector unit ----
  // The low 2^cp_log2 bytes of w, repeated.
  function automatic logic [511:0] repeated(input logic [511:0] w, input logic [2:0] cp_log2);
    unique case (cp_log2)
      3'd0:    return {64{w[7:0]}};
      3'd1:    return {32{w[15:0]}};
      3'd2:    return {16{w[31:0]}};
      3'd3:    return {8{w[63:0]}};
      3'd4:    return {4{w[127:0]}};
      3'd5:    return {2{w[255:0]}};
      default: return w;
    endcase
  endfunction

  // SEC_CM: SPAD.MEM.SEC_WIPE
  logic [511:0] a_data_q;
  always_ff @(posedge clk_i) begin
    if (wipe_i) a_data_q <= '0;
    else if (rd_done && rd_done_tag == RdA && two) a_data_q <= rd_data_i;
  end
  assign word_valid_o = rd_done && rd_done_tag == (two ? RdB : RdA);
  assign word_a_o     = two ? a_data_q : rd_data_i;
  always_comb begin
    word_b_o = '0;
    if (word_valid_o && two) begin
      word_b_o = desc_i.in2_broadcast ? repeated(rd_data_i, geom_i.out_cp) : rd_data_i;
    end
  end

  // ---- Input stream and writes ----
  logic in_take;
  assign in_ready_o = state_q == StInput || state_q == StRest;
  assign in_take    = in_valid_i && state_q == StInput;

  logic         wr_q;
  word_t        wr_addr_q;
  logic [511:0] wr_data_q;
  logic [31:0]  wr_left_q;   // words: words of the image still to be written
  logic [15:0]  wr_images_q;
  word_t        wr_word_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) wr_q <= 1'b0;
    else wr_q <= (in_take || word_valid_i) && !clear_i && !wipe_i;
  end
  // SEC_CM: SPAD.MEM.SEC_WIPE
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      wr_data_q <= '0;
    end else if (word_valid_i) begin
      wr_data_q <= word_data_i;
      wr_addr_q <= wr_word_q;
    end else if (in_take) begin
      wr_data_q <= in_data_i;
      wr_addr_q <= y_q;
    end
  end
  assign wr_en_o   = wr_q;
  assign wr_addr_o = wr_addr_q;
  assign wr_data_o = wr_data_q;

  // ---- Control ----
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q     <= StIdle;
      bad_q       <= 1'b0;
      left_q      <= '0;
      images_q    <= '0;
      wr_left_q   <= '0;
      wr_images_q <= '0;
      wr_word_q   <= '0;
      a_img_q     <= '0;
      b_img_q     <= '0;
      y_img_q     <= '0;
      a_q         <= '0;
      b_q         <= '0;
      y_q         <= '0;
      block_q     <= '0;
      phase_q     <= '0;
      cred_q      <= '0;
    end else if (clear_i || wipe_i) begin
      state_q <= StIdle;
      cred_q  <= '0;
    end else begin
      cred_q <= cred_q + Cw'(out_issue) - Cw'(pop);
      unique case (state_q)
        StIdle: begin
          bad_q <= 1'b0;
          if (start_i) begin
            a_img_q     <= word_t'(desc_i.in_base);
            a_q         <= word_t'(desc_i.in_base);
            b_img_q     <= word_t'(desc_i.in2_base);
            b_q         <= word_t'(desc_i.in2_base);
            y_img_q     <= word_t'(desc_i.out_base);
            y_q         <= word_t'(desc_i.out_base);
            wr_word_q   <= word_t'(desc_i.out_base);
            block_q     <= '0;
            phase_q     <= '0;
            images_q    <= batch_i;
            wr_images_q <= batch_i;
            wr_left_q   <= geom_i.out_words;
            unique case (desc_i.op)
              OpInput, OpLoad: begin
                state_q <= StInput;
                left_q  <= geom_i.out_total;
              end
              OpOutput, OpSpill: begin
                state_q <= StOutput;
                left_q  <= geom_i.in_total;
              end
              default: begin
                state_q <= StWords;
                left_q  <= geom_i.out_words;
              end
            endcase
          end
        end
        StInput: begin
          if (in_take) begin
            y_q    <= y_q + 1'b1;
            left_q <= left_q - 1'b1;
            if (desc_i.op == OpLoad) begin
              if (left_q == 32'd1) state_q <= in_last_i ? StDone : StRest;
            end else if (in_last_i || left_q == 32'd1) begin
              state_q <= StDone;
              bad_q   <= in_last_i != (left_q == 32'd1);
            end
          end
        end
        StRest: if (in_valid_i && in_last_i) state_q <= StDone;
        StOutput: begin
          if (out_issue) begin
            a_q    <= a_q + 1'b1;
            left_q <= left_q - 1'b1;
          end
          if (left_q == '0 && cred_q == '0) state_q <= StDone;
        end
        StWords: begin
          phase_q <= phase_q == phase_last ? '0 : phase_q + 1'b1;
          if (word_next) begin
            a_q     <= a_q + 1'b1;
            b_q     <= b_q + 1'b1;
            block_q <= block_q + 1'b1;
            left_q  <= left_q - 1'b1;
            if (desc_i.in2_broadcast && block_q == geom_i.out_cb - 7'd1) begin
              b_q     <= b_img_q;
              block_q <= '0;
            end
            if (left_q == 32'd1) begin
              left_q   <= geom_i.out_words;
              images_q <= images_q - 1'b1;
              a_img_q  <= a_img_q + word_t'(desc_i.in_stride);
              a_q      <= a_img_q + word_t'(desc_i.in_stride);
              b_img_q  <= b_img_q + word_t'(desc_i.in2_stride);
              b_q      <= b_img_q + word_t'(desc_i.in2_stride);
              block_q  <= '0;
            end
          end
          if (word_valid_i) begin
            wr_word_q <= wr_word_q + 1'b1;
            wr_left_q <= wr_left_q - 1'b1;
            if (wr_left_q == 32'd1) begin
              wr_left_q   <= geom_i.out_words;
              wr_images_q <= wr_images_q - 1'b1;
              y_img_q     <= y_img_q + word_t'(desc_i.out_stride);
              wr_word_q   <= y_img_q + word_t'(desc_i.out_stride);
            end
          end
          if (wr_images_q == '0) state_q <= StDone;
        end
        StDone: if (!wr_q) state_q <= StIdle;
        default: state_q <= StIdle;
      endcase
    end
  end

  assign done_o = state_q == StDone && !wr_q;
  assign bad_o  = bad_q;
endmodule
