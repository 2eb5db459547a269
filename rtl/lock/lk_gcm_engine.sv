// AES-128-GCM of fixed-form messages, one 512-bit beat a cycle: decryption and authentication or,
// with seal_i, encryption.
//
// lk_gcm wraps this with the constants of a page. What makes a message form is three inputs that
// stay constant while a key is in use:
//   cfg_beats_i  beats in a message (>= 1)
//   cfg_ctr_i    counter of the first block of a message (2 when the first block is ciphertext)
//   cfg_len_i    GCM's length block, in memory byte order
// A fourth, seal_i, says that beats are plaintext: pt_data_o is then their ciphertext, which is
// what is hashed, and the message's tag comes with tag_valid_o if its header had a tag of zero.
// Verdicts mean nothing while sealing.
// Zero blocks in front do not change GHASH, so a shorter message, and one with associated data, is
// run by aligning its blocks to the end of its beats and starting the counter that much lower. The
// published vectors are run that way.
//
// Order of events: a header is an IV, and lets the beats of its message in. Each beat enters the
// four counter-mode lanes and GHASH at once. Meanwhile the iterative AES yields E(J0). The tag of
// the message comes when it likes, in the order of headers, even after the last beat: E(J0), LEN*H
// and the tag add up to the value that GHASH over the ciphertext must reach, in a queue of two; a
// hash that is there before them waits. Latencies are constants in lk_gcm_pkg: plaintext PtLatency
// cycles after its beat, the verdict VerdictLatency cycles after the last beat, which is before the
// last plaintext. A header takes 12 cycles, so messages of 20 beats or more run without a gap if
// headers come early enough.
//
// Keys: a rising key_valid_i or key_load_i takes key_i and drops every message under way;
// key_ready_o comes 79 cycles later. wipe_i or a falling key_valid_i zeroises all key-dependent
// state at the next clock edge: round keys, H and its powers, LEN*H, expected hashes, cipher and
// multiplier pipelines, plaintext register. Afterwards nothing is accepted until a key is loaded
// again. Reset does the same at the first clock edge after it.
// Wide data registers have a synchronous clear and no asynchronous reset: a flip-flop of the target
// has only one of the two, and the first clock edge after reset clears them anyway.
// Byte order: byte b of every bus is bits [8*b+7:8*b].
module lk_gcm_engine (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic [15:0]  cfg_beats_i,
  input  logic [31:0]  cfg_ctr_i,
  input  logic [127:0] cfg_len_i,
  input  logic         seal_i,
  input  logic         key_valid_i,
  input  logic [127:0] key_i,
  input  logic         key_load_i,
  input  logic         wipe_i,
  output logic         key_ready_o,
  input  logic         hdr_valid_i,
  output logic         hdr_ready_o,
  input  logic [95:0]  hdr_iv_i,
  input  logic         hdr_tag_valid_i,  // in the order of headers
  output logic         hdr_tag_ready_o,
  input  logic [127:0] hdr_tag_i,
  input  logic         ct_valid_i,
  output logic         ct_ready_o,
  input  logic [511:0] ct_data_i,
  output logic         pt_valid_o,
  output logic [511:0] pt_data_o,
  output logic         pt_last_o,
  output logic         verdict_valid_o,
  output logic         verdict_ok_o,
  output logic         verdict_bad_o, // of one comparator alone; a page passes with ok and not bad
  output logic         tag_valid_o,
  output logic [127:0] tag_o
);
  // ---- key state machine ------------------------------------------------------------------------
  // Hamming distance 3 between the codes; anything else is a fault and ends in StTrap.
  typedef enum logic [6:0] {
    StReset  = 7'b0000000,
    StNoKey  = 7'b0000111,
    StExpand = 7'b0011001,
    StHash   = 7'b0101010,
    StWaitH  = 7'b1001011,
    StPowers = 7'b0110100,
    StReady  = 7'b1010010,
    StTrap   = 7'b1101100
  } state_e;

  (* fsm_encoding = "none" *) state_e state_q;
  state_e state_d;
  logic   key_valid_q, key_start, clear;
  logic   keys_valid, aes_req, aes_ready, aes_rsp, powers_valid, gh_start;
  logic [127:0] aes_block, aes_out;

  assign key_start = key_valid_i && (!key_valid_q || key_load_i) && !wipe_i && state_q != StReset
                     && state_q != StTrap;

  always_comb begin
    state_d  = state_q;
    clear    = 1'b0;
    gh_start = 1'b0;
    unique case (state_q)
      StReset: begin
        clear   = 1'b1;
        state_d = StNoKey;
      end
      StNoKey: ;
      StExpand: if (keys_valid) state_d = StHash;
      StHash: if (aes_ready) state_d = StWaitH;
      StWaitH: begin
        if (aes_rsp) begin
          gh_start = 1'b1;
          state_d  = StPowers;
        end
      end
      StPowers: if (powers_valid) state_d = StReady;
      StReady: ;
      default: begin  // SEC_CM: FSM.SPARSE
        clear   = 1'b1;
        state_d = StTrap;
      end
    endcase
    if (state_q != StReset && state_d != StTrap) begin
      if (key_start) begin
        clear   = 1'b1;
        state_d = StExpand;
      end else if (wipe_i || (!key_valid_i && state_q != StNoKey)) begin
        clear   = 1'b1;  // SEC_CM: KEY.ZEROISE
        state_d = StNoKey;
      end
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q     <= StReset;
      key_valid_q <= 1'b0;
    end else begin
      state_q <= state_d;
      // in StReset no start is possible, so a key that is there already counts as rising afterwards
      key_valid_q <= key_valid_i && (state_q != StReset);
    end
  end

  assign key_ready_o = (state_q == StReady);

  // ---- headers ----------------------------------------------------------------------------------
  logic [1:0][95:0]  iv_q;      // of messages whose last beat has not come
  logic [1:0][127:0] exp_q;     // what GHASH of the ciphertext must be; up to the tag, first
  logic [1:0]        iv_level_q, exp_level_q;
  logic [1:0]        tagged_q;  // entries of exp_q that have their tag
  logic [1:0]        closed_q;  // messages whose last beat was taken and that are not yet judged
  logic              iv_wr_q, iv_rd_q, exp_wr_q, tag_wr_q;
  (* keep = "true" *) logic exp_rd_a_q;  // one for each comparator
  (* keep = "true" *) logic exp_rd_b_q;
  logic              pend_q;    // a header was taken and waits for E(J0)
  logic              hash_wait_q;  // hash_q waits for E(J0) and tag
  logic [127:0]      len_h, hash, hash_q;
  logic              hdr_take, hdr_done, tag_take, iv_pop, judge, hash_valid;

  assign hdr_ready_o = (state_q == StReady) && aes_ready && !pend_q && exp_level_q != 2'd2;
  assign hdr_take    = hdr_valid_i && hdr_ready_o;
  assign hdr_done    = pend_q && aes_rsp;
  assign aes_req     = hdr_take || (state_q == StHash);
  assign aes_block   = hdr_take ? {32'h01000000, hdr_iv_i} : 128'b0;

  assign hdr_tag_ready_o = exp_level_q != tagged_q;
  assign tag_take        = hdr_tag_valid_i && hdr_tag_ready_o;
  assign judge           = (hash_valid || hash_wait_q) && tagged_q != 2'd0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {pend_q, hash_wait_q, iv_wr_q, iv_rd_q, exp_wr_q, tag_wr_q, exp_rd_a_q, exp_rd_b_q} <= '0;
      {iv_level_q, exp_level_q, tagged_q, closed_q} <= '0;
    end else if (clear) begin
      {pend_q, hash_wait_q, iv_wr_q, iv_rd_q, exp_wr_q, tag_wr_q, exp_rd_a_q, exp_rd_b_q} <= '0;
      {iv_level_q, exp_level_q, tagged_q, closed_q} <= '0;
    end else begin
      pend_q      <= hdr_take || (pend_q && !hdr_done);
      hash_wait_q <= (hash_valid || hash_wait_q) && !judge;
      iv_wr_q     <= iv_wr_q ^ hdr_take;
      iv_rd_q     <= iv_rd_q ^ iv_pop;
      exp_wr_q    <= exp_wr_q ^ hdr_done;
      tag_wr_q    <= tag_wr_q ^ tag_take;
      exp_rd_a_q  <= exp_rd_a_q ^ judge;
      exp_rd_b_q  <= exp_rd_b_q ^ judge;
      iv_level_q  <= iv_level_q + 2'(hdr_take) - 2'(iv_pop);
      exp_level_q <= exp_level_q + 2'(hdr_done) - 2'(judge);
      tagged_q    <= tagged_q + 2'(tag_take) - 2'(judge);
      closed_q    <= closed_q + 2'(iv_pop) - 2'(judge);
    end
  end

  always_ff @(posedge clk_i) begin
    if (clear) begin
      exp_q  <= '0;  // SEC_CM: KEY.ZEROISE (with the ciphertext it would give H away)
      hash_q <= '0;
    end else begin
      if (hdr_take) iv_q[iv_wr_q] <= hdr_iv_i;
      if (hdr_done) exp_q[exp_wr_q] <= aes_out ^ len_h;
      if (tag_take) exp_q[tag_wr_q] <= exp_q[tag_wr_q] ^ hdr_tag_i;
      // A hash that was judged must not stay: its page may come again, changed.
      if (judge) hash_q <= '0;
      else if (hash_valid) hash_q <= hash;
    end
  end

  // ---- beats ------------------------------------------------------------------------------------
  logic        take, first_q, last_beat;
  logic [15:0] left_q;  // beats left in the message when first_q is low
  logic [15:0] left;
  logic [31:0] ctr_q, ctr;

  // A hash that waits for its tag holds up the end of the next message.
  assign ct_ready_o = (state_q == StReady) && iv_level_q != 2'd0 &&
                      (!last_beat || closed_q == 2'd0 || tagged_q != 2'd0);
  assign take       = ct_valid_i && ct_ready_o;
  assign left       = first_q ? cfg_beats_i : left_q;
  assign ctr        = first_q ? cfg_ctr_i : ctr_q;
  assign last_beat  = (left == 16'd1);
  assign iv_pop     = take && last_beat;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      first_q <= 1'b1;
      left_q  <= '0;
      ctr_q   <= '0;
    end else if (clear) begin
      first_q <= 1'b1;
      left_q  <= '0;
      ctr_q   <= '0;
    end else if (take) begin
      first_q <= last_beat;
      left_q  <= left - 16'd1;
      ctr_q   <= ctr + 32'(lk_gcm_pkg::Lanes);
    end
  end

  // What is hashed: ciphertext as it comes or, while sealing, as it leaves.
  logic         out_first_q, hash_take;
  logic [15:0]  out_left_q, out_left, hash_left;
  logic [511:0] hash_data;
  logic         hash_first;

  assign out_left   = out_first_q ? cfg_beats_i : out_left_q;
  assign hash_take  = seal_i ? pt_valid_o : take;
  assign hash_data  = seal_i ? pt_data_o : ct_data_i;
  assign hash_left  = seal_i ? out_left : left;
  assign hash_first = seal_i ? out_first_q : first_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      out_first_q <= 1'b1;
      out_left_q  <= '0;
    end else if (clear) begin
      out_first_q <= 1'b1;
      out_left_q  <= '0;
    end else if (pt_valid_o && seal_i) begin
      out_first_q <= out_left == 16'd1;
      out_left_q  <= out_left - 16'd1;
    end
  end

  // ---- ciphers ----------------------------------------------------------------------------------
  logic [lk_gcm_pkg::AesRounds:0][127:0] round_keys;
  logic         ks_valid;
  logic [511:0] ks;

  lk_aes_iter u_iter (
    .clk_i        (clk_i),
    .rst_ni       (rst_ni),
    .wipe_i       (clear),
    .key_load_i   (key_start),
    .key_i        (key_i),
    .keys_valid_o (keys_valid),
    .round_keys_o (round_keys),
    .req_valid_i  (aes_req),
    .req_ready_o  (aes_ready),
    .req_data_i   (aes_block),
    .rsp_valid_o  (aes_rsp),
    .rsp_data_o   (aes_out)
  );

  lk_aes_ctr u_ctr (
    .clk_i        (clk_i),
    .rst_ni       (rst_ni),
    .wipe_i       (clear),
    .round_keys_i (round_keys),
    .valid_i      (take),
    .iv_i         (iv_q[iv_rd_q]),
    .ctr_i        (ctr),
    .valid_o      (ks_valid),
    .ks_o         (ks)
  );

  lk_ghash u_ghash (
    .clk_i          (clk_i),
    .rst_ni         (rst_ni),
    .wipe_i         (clear),
    .key_start_i    (gh_start),
    .h_i            (aes_out),
    .len_block_i    (cfg_len_i),
    .powers_valid_o (powers_valid),
    .len_h_o        (len_h),
    .valid_i        (hash_take),
    .data_i         (hash_data),
    .left_i         (hash_left),
    .start_i        (hash_first),
    .hash_valid_o   (hash_valid),
    .hash_o         (hash)
  );

  // ---- plaintext --------------------------------------------------------------------------------
  // What came waits in a small LUT RAM while its keystream is computed. While sealing that is
  // plaintext: a clear is followed by 16 cycles that write zeros, over long before a key stands.
  logic [511:0] ct_mem [16];
  logic [3:0]   ct_wr_q, ct_rd_q;
  logic [4:0]   zero_q;   // places still to be zeroed
  logic         clear_q;  // a clear may last: its beginning counts
  logic [lk_gcm_pkg::AesRounds:0] last_q;

  // SEC_CM: KEY.ZEROISE
  always_ff @(posedge clk_i) begin
    if (zero_q != '0) ct_mem[zero_q[3:0]] <= '0;
    else if (take) ct_mem[ct_wr_q] <= ct_data_i;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      zero_q  <= 5'd16;
      clear_q <= 1'b0;
    end else begin
      clear_q <= clear;
      if (clear && !clear_q) zero_q <= 5'd16;
      else if (zero_q != '0) zero_q <= zero_q - 5'd1;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      ct_wr_q    <= '0;
      ct_rd_q    <= '0;
      last_q     <= '0;
      pt_valid_o <= 1'b0;
      pt_last_o  <= 1'b0;
    end else if (clear) begin
      ct_wr_q    <= '0;
      ct_rd_q    <= '0;
      last_q     <= '0;
      pt_valid_o <= 1'b0;
      pt_last_o  <= 1'b0;
    end else begin
      if (take) ct_wr_q <= ct_wr_q + 4'd1;
      last_q     <= {last_q[lk_gcm_pkg::AesRounds-1:0], take && last_beat};
      pt_valid_o <= ks_valid;
      pt_last_o  <= last_q[lk_gcm_pkg::AesRounds];
      if (ks_valid) ct_rd_q <= ct_rd_q + 4'd1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (clear) pt_data_o <= '0;  // SEC_CM: KEY.ZEROISE
    else if (ks_valid) pt_data_o <= ct_mem[ct_rd_q] ^ ks;
  end

  // ---- verdict ----------------------------------------------------------------------------------
  // Two comparators on separate registers, one in true and one in complement form, joined at the
  // output: a single stuck or flipped bit can only turn a pass into a fail. Behind the joint
  // verdict_bad_o, one comparator alone and complemented, is what the ring asks too: no single wire
  // passes a page.
  // All 128 bits are compared at once, so the time tells nothing about where tags differ.
  (* keep = "true" *) logic [127:0] diff_a_q;
  (* keep = "true" *) logic [127:0] diff_b_q;
  (* keep = "true" *) logic ok_a_q;
  (* keep = "true" *) logic ok_b_q;
  logic         diff_valid_q, ok_valid_q;
  logic [127:0] judged;

  assign judged = hash_wait_q ? hash_q : hash;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {diff_valid_q, ok_valid_q, ok_a_q, ok_b_q} <= '0;
    end else if (clear) begin
      {diff_valid_q, ok_valid_q, ok_a_q, ok_b_q} <= '0;
    end else begin
      diff_valid_q <= judge;
      ok_valid_q   <= diff_valid_q;
      // SEC_CM: TAG.CMP_DUP
      ok_a_q       <= diff_valid_q && (diff_a_q == '0);
      ok_b_q       <= diff_valid_q && (&diff_b_q);
    end
  end

  always_ff @(posedge clk_i) begin
    if (clear) begin
      diff_a_q <= '1;  // SEC_CM: KEY.ZEROISE
      diff_b_q <= '0;
    end else if (judge) begin
      diff_a_q <= judged ^ exp_q[exp_rd_a_q];
      diff_b_q <= ~judged ^ exp_q[exp_rd_b_q];
    end
  end

  assign tag_valid_o = diff_valid_q && seal_i;
  assign tag_o       = tag_valid_o ? diff_a_q : '0;

  assign verdict_valid_o = ok_valid_q;
  assign verdict_ok_o    = ok_a_q && ok_b_q;
  assign verdict_bad_o   = !ok_b_q;

`ifdef VERILATOR
  always_ff @(posedge clk_i) begin
    if (rst_ni && state_q != StReset && !clear) begin
      assert (!(hash_valid && hash_wait_q)) else $error("%m: two hashes wait for their tags");
      assert (!hash_valid || closed_q != 2'd0) else $error("%m: hash without a header");
      assert (!(hdr_done && exp_level_q == 2'd2)) else $error("%m: header queue overflows");
      assert (!(hdr_take && iv_level_q == 2'd2)) else $error("%m: IV queue overflows");
      assert (cfg_beats_i != 16'd0) else $error("%m: a message has at least one beat");
    end
  end
`endif
endmodule
