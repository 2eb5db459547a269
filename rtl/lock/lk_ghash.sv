// GHASH at four blocks a cycle.
//
// The multiplier is d = 3 stages deep, so three accumulators take turns: beat j (blocks C1..C4)
// does
//   Y[j mod d] <- (Y[j mod d] ^ C1)*H^(4d) ^ C2*H^(4d-1) ^ C3*H^(4d-2) ^ C4*H^(4d-3)
// and in the last d beats of a message 4d is replaced by 4*(beats left) + 1 (1 left = the last
// one). The sum of the last d results is then the hash of all blocks except the length block, whose
// product LEN*H is a constant of the key and the message length and is offered in len_h_o.
//
// Messages follow each other without a gap, and any pattern of idle cycles between beats is fine:
// an accumulator that is not used in the very cycle it leaves the multiplier waits in hold_q.
//
// key_start_i with h_i computes H^2 .. H^13 and LEN*H, one product at a time (53 cycles); no
// beats before powers_valid_o. hash_valid_o comes 4 cycles after the last beat of a message.
// All ports are in memory byte order (byte b in bits [8*b+7:8*b], GCM's own bit order within it).
module lk_ghash (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         wipe_i,
  input  logic         key_start_i,
  input  logic [127:0] h_i,
  input  logic [127:0] len_block_i,    // static while a key is in use
  output logic         powers_valid_o,
  output logic [127:0] len_h_o,
  input  logic         valid_i,
  input  logic [511:0] data_i,
  input  logic [15:0]  left_i,         // beats left in the message, this one included
  input  logic         start_i,        // first beat of the message
  output logic         hash_valid_o,
  output logic [127:0] hash_o
);
  localparam int unsigned D = lk_gcm_pkg::GhashDepth;
  localparam int unsigned N = lk_gcm_pkg::Powers;

  // ---- powers of H ------------------------------------------------------------------------------
  logic [N:1][127:0] pow_q;
  logic [127:0]      len_h_q;
  logic [3:0]        step_q;   // the power being computed; N + 1 stands for LEN*H
  logic [2:0]        wait_q;   // one-hot: stages of the product under way
  logic              busy_q, ready_q, issue_q;

  logic [127:0] y;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      step_q  <= '0;
      wait_q  <= '0;
      busy_q  <= 1'b0;
      ready_q <= 1'b0;
      issue_q <= 1'b0;
    end else if (wipe_i) begin
      step_q  <= '0;
      wait_q  <= '0;
      busy_q  <= 1'b0;
      ready_q <= 1'b0;
      issue_q <= 1'b0;
    end else if (key_start_i) begin
      step_q  <= 4'd2;
      busy_q  <= 1'b1;
      ready_q <= 1'b0;
      issue_q <= 1'b1;
      wait_q  <= '0;
    end else if (busy_q) begin
      issue_q <= wait_q[2];  // the product is in y in the next cycle
      wait_q  <= {wait_q[1:0], issue_q};
      if (wait_q[2]) step_q <= step_q + 4'd1;
      if (issue_q && step_q == 4'(N + 2)) begin
        busy_q  <= 1'b0;
        issue_q <= 1'b0;
        wait_q  <= '0;
        ready_q <= 1'b1;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      pow_q   <= '0;  // SEC_CM: KEY.ZEROISE
      len_h_q <= '0;
    end else if (key_start_i) begin
      pow_q[1] <= lk_gcm_pkg::mirror_bytes(h_i);
    end else if (busy_q && issue_q) begin
      // y holds the product of the step before this one
      for (int unsigned i = 2; i <= N; i++) begin
        if (step_q == 4'(i + 1)) pow_q[i] <= y;
      end
      if (step_q == 4'(N + 2)) len_h_q <= y;
    end
  end

  assign powers_valid_o = ready_q;
  assign len_h_o        = lk_gcm_pkg::mirror_bytes(len_h_q);

  // ---- operand stage ----------------------------------------------------------------------------
  logic [3:0][127:0]        a_q, b_q;
  logic                     v0_q, v1_q, v2_q, v3_q;        // beats in operand stage .. in y
  logic [1:0]               i0_q, i1_q, i2_q, i3_q;        // accumulator of each
  logic                     fin0_q, fin1_q, fin2_q, fin3_q;    // counts into the hash
  logic                     ff0_q, ff1_q, ff2_q, ff3_q;        // first of those
  logic                     lst0_q, lst1_q, lst2_q, lst3_q;    // last of those
  logic                     from_y_q;  // accumulator comes straight from the multiplier
  logic [D-1:0][127:0]      hold_q;
  logic [1:0]               idx_q;
  logic [1:0]               seen_q;    // beats of this message so far, up to D
  logic                     fb, take_y;
  logic [1:0]               seen;

  assign seen   = start_i ? 2'd0 : seen_q;
  assign fb     = (seen == 2'(D));
  assign take_y = fb && v2_q && (i2_q == idx_q);

  // A power product has its own operands; beats and powers never overlap.
  logic load_pow;
  assign load_pow = issue_q && (step_q <= 4'(N + 1));

  always_ff @(posedge clk_i) begin
    if (wipe_i) begin
      a_q <= '0;  // SEC_CM: KEY.ZEROISE
      b_q <= '0;
    end else if (load_pow) begin
      a_q    <= '0;
      a_q[0] <= (step_q == 4'(N + 1)) ? lk_gcm_pkg::mirror_bytes(len_block_i)
                                      : ((step_q == 4'd2) ? pow_q[1] : y);
      b_q    <= '0;
      b_q[0] <= pow_q[1];
    end else if (valid_i) begin
      a_q[0] <= lk_gcm_pkg::mirror_bytes(data_i[127:0])
                ^ ((fb && !take_y) ? ((v3_q && i3_q == idx_q) ? y : hold_q[idx_q]) : 128'b0);
      a_q[1] <= lk_gcm_pkg::mirror_bytes(data_i[255:128]);
      a_q[2] <= lk_gcm_pkg::mirror_bytes(data_i[383:256]);
      a_q[3] <= lk_gcm_pkg::mirror_bytes(data_i[511:384]);
      unique case (left_i)
        16'd1:   b_q <= {pow_q[2], pow_q[3], pow_q[4], pow_q[5]};
        16'd2:   b_q <= {pow_q[6], pow_q[7], pow_q[8], pow_q[9]};
        16'd3:   b_q <= {pow_q[10], pow_q[11], pow_q[12], pow_q[13]};
        default: b_q <= {pow_q[9], pow_q[10], pow_q[11], pow_q[12]};
      endcase
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      {v0_q, v1_q, v2_q, v3_q} <= '0;
      {i0_q, i1_q, i2_q, i3_q} <= '0;
      {fin0_q, fin1_q, fin2_q, fin3_q} <= '0;
      {ff0_q, ff1_q, ff2_q, ff3_q} <= '0;
      {lst0_q, lst1_q, lst2_q, lst3_q} <= '0;
      from_y_q <= 1'b0;
      idx_q    <= '0;
      seen_q   <= '0;
    end else if (wipe_i) begin
      {v0_q, v1_q, v2_q, v3_q} <= '0;
      {i0_q, i1_q, i2_q, i3_q} <= '0;
      {fin0_q, fin1_q, fin2_q, fin3_q} <= '0;
      {ff0_q, ff1_q, ff2_q, ff3_q} <= '0;
      {lst0_q, lst1_q, lst2_q, lst3_q} <= '0;
      from_y_q <= 1'b0;
      idx_q    <= '0;
      seen_q   <= '0;
    end else begin
      v0_q     <= valid_i;
      from_y_q <= valid_i && take_y;
      if (valid_i) begin
        idx_q    <= (idx_q == 2'(D - 1)) ? 2'd0 : idx_q + 2'd1;
        seen_q   <= (seen == 2'(D)) ? seen : seen + 2'd1;
        i0_q     <= idx_q;
        fin0_q   <= left_i <= 16'(D);
        ff0_q    <= (left_i == 16'(D)) || (start_i && left_i < 16'(D));
        lst0_q   <= left_i == 16'd1;
      end
      {v1_q, v2_q, v3_q}       <= {v0_q, v1_q, v2_q};
      {i1_q, i2_q, i3_q}       <= {i0_q, i1_q, i2_q};
      {fin1_q, fin2_q, fin3_q} <= {fin0_q, fin1_q, fin2_q};
      {ff1_q, ff2_q, ff3_q}    <= {ff0_q, ff1_q, ff2_q};
      {lst1_q, lst2_q, lst3_q} <= {lst0_q, lst1_q, lst2_q};
    end
  end

  always_ff @(posedge clk_i) begin
    if (wipe_i) hold_q <= '0;  // SEC_CM: KEY.ZEROISE
    else if (v3_q) hold_q[i3_q] <= y;
  end

  // ---- multiplier -------------------------------------------------------------------------------
  logic              mul_valid_q;  // a power product is in the operand stage
  logic [3:0][127:0] mul_a;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) mul_valid_q <= 1'b0;
    else mul_valid_q <= load_pow && !wipe_i;
  end

  always_comb begin
    mul_a = a_q;
    if (from_y_q) mul_a[0] = a_q[0] ^ y;
  end

  prim_gf128_dot4 u_mul (
    .clk_i   (clk_i),
    .clear_i (wipe_i),
    .valid_i (v0_q || mul_valid_q),
    .a_i     (mul_a),
    .b_i     (b_q),
    .y_o     (y)
  );

  // ---- hash of the message ----------------------------------------------------------------------
  logic [127:0] sum_q, sum;

  assign sum = (ff3_q ? 128'b0 : sum_q) ^ y;

  always_ff @(posedge clk_i) begin
    if (wipe_i) sum_q <= '0;  // SEC_CM: KEY.ZEROISE
    else if (v3_q && fin3_q) sum_q <= sum;
  end

  assign hash_valid_o = v3_q && lst3_q;
  assign hash_o       = lk_gcm_pkg::mirror_bytes(sum);
endmodule
