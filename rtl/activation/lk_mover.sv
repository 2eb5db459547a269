// Mover: the operations that go through tensors word by word.
//   Input:  batch * out_stride words of the input stream to out_base and on (image i starts at
//           base + i * stride and takes stride words, so all images are one run of words).
//   Output: batch * in_stride words from in_base on to the output stream; tlast on the last.
//   Add:    words of two tensors to the vector unit and its results back, image by image.
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
  // scratchpad
  output logic              rd_en_o,
  output logic [Ww-1:0]     rd_addr_o,
  input  logic [511:0]      rd_data_i,
  output logic              wr_en_o,
  output logic [Ww-1:0]     wr_addr_o,
  output logic [63:0]       wr_be_o,
  output logic [511:0]      wr_data_o,
  // vector unit
  output logic              add_valid_o,
  output logic [511:0]      add_a_o,
  output logic [511:0]      add_b_o,
  input  logic              add_valid_i,
  input  logic [1:0]        add_chunk_i,
  input  logic [127:0]      add_data_i
);
  import lk_pkg::*;

  localparam int unsigned Depth = 8;
  localparam int unsigned Cw    = $clog2(Depth) + 1;
  typedef logic [Ww-1:0] word_t;

  typedef enum logic [2:0] {StIdle, StInput, StOutput, StAdd, StDone} state_e;
  state_e      state_q;
  logic        bad_q;
  logic [31:0] left_q;    // words left: to take, to read, or of the image
  logic [15:0] images_q;  // Add: images left, this one included
  word_t       a_img_q, b_img_q, y_img_q, a_q, b_q, y_q;
  logic [1:0]  phase_q;   // Add: 0 reads a, 1 reads b

  // ---- Reads in flight ----
  typedef enum logic [1:0] {RdOut, RdOutLast, RdA, RdB} rd_e;
  logic [ReadLatency-1:0] rd_valid_q;
  rd_e                    rd_tag_q [ReadLatency];
  rd_e                    rd_tag;
  logic                   rd_done;
  rd_e                    rd_done_tag;
  logic [Cw-1:0]          cred_q;  // output words between read and stream
  logic                   out_issue, add_issue, pop;

  assign out_issue = state_q == StOutput && left_q != '0 && cred_q != Cw'(Depth);
  assign add_issue = state_q == StAdd && images_q != '0 && !phase_q[1];
  assign rd_en_o   = out_issue || add_issue;
  assign rd_addr_o = (add_issue && phase_q[0]) ? b_q : a_q;
  always_comb begin
    rd_tag = left_q == 32'd1 ? RdOutLast : RdOut;
    if (add_issue) rd_tag = phase_q[0] ? RdB : RdA;
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
    .ready_i(out_ready_i),
    .data_o ({out_last_o, out_data_o})
  );
  assign pop = out_valid_o && out_ready_i;

  // ---- Addition ----
  logic [511:0] a_data_q;
  always_ff @(posedge clk_i) begin
    if (wipe_i) a_data_q <= '0;
    else if (rd_done && rd_done_tag == RdA) a_data_q <= rd_data_i;
  end
  assign add_valid_o = rd_done && rd_done_tag == RdB;
  assign add_a_o     = a_data_q;
  assign add_b_o     = rd_data_i;

  // ---- Input stream and writes ----
  logic in_take;
  assign in_ready_o = state_q == StInput;
  assign in_take    = in_valid_i && in_ready_o;

  logic         wr_q;
  word_t        wr_addr_q;
  logic [63:0]  wr_be_q;
  logic [511:0] wr_data_q;
  logic         add_last;
  logic [31:0]  wr_left_q;   // Add: words of the image still to be written
  logic [15:0]  wr_images_q;
  word_t        wr_word_q;

  assign add_last = add_valid_i && add_chunk_i == 2'd3;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) wr_q <= 1'b0;
    else wr_q <= (in_take || add_valid_i) && !clear_i && !wipe_i;
  end
  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      wr_data_q <= '0;
    end else if (add_valid_i) begin
      wr_data_q <= {4{add_data_i}};
      wr_be_q   <= 64'hffff << {add_chunk_i, 4'd0};
      wr_addr_q <= wr_word_q;
    end else if (in_take) begin
      wr_data_q <= in_data_i;
      wr_be_q   <= '1;
      wr_addr_q <= y_q;
    end
  end
  assign wr_en_o   = wr_q;
  assign wr_addr_o = wr_addr_q;
  assign wr_be_o   = wr_be_q;
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
            phase_q     <= '0;
            images_q    <= batch_i;
            wr_images_q <= batch_i;
            wr_left_q   <= geom_i.out_words;
            unique case (desc_i.op)
              OpInput: begin
                state_q <= StInput;
                left_q  <= geom_i.out_total;
              end
              OpOutput: begin
                state_q <= StOutput;
                left_q  <= geom_i.in_total;
              end
              default: begin
                state_q <= StAdd;
                left_q  <= geom_i.out_words;
              end
            endcase
          end
        end
        StInput: begin
          if (in_take) begin
            y_q    <= y_q + 1'b1;
            left_q <= left_q - 1'b1;
            if (in_last_i || left_q == 32'd1) begin
              state_q <= StDone;
              bad_q   <= in_last_i != (left_q == 32'd1);
            end
          end
        end
        StOutput: begin
          if (out_issue) begin
            a_q    <= a_q + 1'b1;
            left_q <= left_q - 1'b1;
          end
          if (left_q == '0 && cred_q == '0) state_q <= StDone;
        end
        StAdd: begin
          phase_q <= phase_q + 1'b1;
          if (add_issue && phase_q[0]) begin
            a_q    <= a_q + 1'b1;
            b_q    <= b_q + 1'b1;
            left_q <= left_q - 1'b1;
            if (left_q == 32'd1) begin
              left_q   <= geom_i.out_words;
              images_q <= images_q - 1'b1;
              a_img_q  <= a_img_q + word_t'(desc_i.in_stride);
              a_q      <= a_img_q + word_t'(desc_i.in_stride);
              b_img_q  <= b_img_q + word_t'(desc_i.in2_stride);
              b_q      <= b_img_q + word_t'(desc_i.in2_stride);
            end
          end
          if (add_last) begin
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
