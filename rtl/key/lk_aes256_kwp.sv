// AES-256 key unwrap with padding (RFC 5649, NIST SP 800-38F KWP-AD) for one fixed plaintext
// length.
//
// The wrapped key has NumSemiblocks + 1 blocks of 64 bits; it must open to exactly PlainBytes
// bytes, 8 * NumSemiblocks - 7 .. 8 * NumSemiblocks. `start_i` takes `key_i`; the ciphertext is
// read through `ct_idx_o` / `ct_word_i` (32-bit words in memory order, same cycle) in an order of
// the module's choosing, once. After a time that depends on NumSemiblocks only, `done_o` pulses:
//   `ok_o`  integrity value A65959A6, length and zero padding all right; the verdict falls once, at
//           the end, over all of them together
//   `pt_o`  the plaintext, byte b at [8*b+7:8*b]; all zero unless `ok_o`
// Both stay until the next start or wipe. The key is gone from the module by then.
//
// Limits: 1 <= NumSemiblocks <= 64 (6 * 64 steps fit the counter). One block (NumSemiblocks = 1) is
// the standard's special case, a single decryption.
module lk_aes256_kwp #(
  parameter int unsigned NumSemiblocks = 6,
  parameter int unsigned PlainBytes    = 8 * NumSemiblocks
) (
  input  logic                          clk_i,
  input  logic                          rst_ni,
  input  logic                          wipe_i,
  input  logic                          start_i,
  input  logic [255:0]                  key_i,
  output logic [7:0]                    ct_idx_o,
  input  logic [31:0]                   ct_word_i,
  output logic                          busy_o,
  output logic                          done_o,
  output logic                          ok_o,
  output logic [64*NumSemiblocks-1:0]   pt_o
);
  if (NumSemiblocks < 1 || NumSemiblocks > 64) begin : gen_bad_semiblocks
    $fatal(1, "%m: NumSemiblocks must be 1 to 64, got %0d", NumSemiblocks);
  end
  if (PlainBytes > 8 * NumSemiblocks || PlainBytes + 7 < 8 * NumSemiblocks) begin : gen_bad_bytes
    $fatal(1, "%m: PlainBytes must need exactly NumSemiblocks blocks, got %0d", PlainBytes);
  end

  localparam int unsigned Bits  = 64 * NumSemiblocks;
  localparam int unsigned Steps = (NumSemiblocks == 1) ? 1 : 6 * NumSemiblocks;

  // SEC_CM: KEY.KWP.SPARSE
  typedef enum logic [5:0] {
    KwIdle  = 6'b000111,
    KwLoad  = 6'b011001,
    KwStart = 6'b011110,
    KwRun   = 6'b101010,
    KwJudge = 6'b101101,
    KwDone  = 6'b110011
  } kwp_state_e;

  kwp_state_e       state_q;
  logic [Bits-1:0]  ring_q;   // semiblock i (from 0) at [64*i +: 64] once loaded
  logic [63:0]      a_q;
  logic [6:0]       load_q;   // semiblock being loaded; 0 is the integrity block
  logic             half_q;
  logic [31:0]      low_q;
  logic [8:0]       step_q;   // t of the algorithm, counting down
  logic             ok_q, done_q;

  logic             aes_start, aes_done, aes_busy;
  logic [127:0]     aes_in, aes_out;
  logic [63:0]      a_xor;

  // t is xored into A as a big-endian number: its low byte goes to byte 7.
  assign a_xor     = (NumSemiblocks == 1) ? a_q
                                          : a_q ^ {step_q[7:0], 7'd0, step_q[8], 48'd0};
  assign aes_in    = {ring_q[Bits-1 -: 64], a_xor};
  assign aes_start = state_q == KwStart;

  lk_aes256_inv u_aes (
    .clk_i,
    .rst_ni,
    .wipe_i  (wipe_i || state_q == KwJudge),
    .load_i  (start_i),
    .key_i   (key_i),
    .start_i (aes_start),
    .block_i (aes_in),
    .busy_o  (aes_busy),
    .done_o  (aes_done),
    .block_o (aes_out)
  );
  logic unused_busy;
  assign unused_busy = aes_busy;

  // Shifting in semiblock n first and 1 last leaves the ring in order, and each step takes the top
  // semiblock and puts the new one at the bottom, which again leaves it in order after n steps.
  assign ct_idx_o = {load_q, half_q};
  assign busy_o   = state_q != KwIdle && state_q != KwDone;
  assign done_o   = done_q;
  assign ok_o     = ok_q && state_q == KwDone;
  assign pt_o     = ok_o ? ring_q : '0;

  // Integrity block: A65959A6, then the length, big-endian.
  logic good;
  localparam logic [31:0] Mli = 32'(PlainBytes);
  always_comb begin
    good = a_q == {Mli[7:0], Mli[15:8], Mli[23:16], Mli[31:24], 32'ha659_59a6};
    for (int unsigned b = PlainBytes; b < 8 * NumSemiblocks; b++) begin
      good &= ring_q[8*b +: 8] == 8'd0;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= KwIdle;
      ring_q  <= '0;
      a_q     <= '0;
      load_q  <= '0;
      half_q  <= 1'b0;
      low_q   <= '0;
      step_q  <= '0;
      ok_q    <= 1'b0;
      done_q  <= 1'b0;
    end else begin
      done_q <= 1'b0;
      if (wipe_i) begin  // SEC_CM: KEY.KWP.WIPE
        state_q <= KwIdle;
        ring_q  <= '0;
        a_q     <= '0;
        low_q   <= '0;
        ok_q    <= 1'b0;
      end else if (start_i) begin
        state_q <= KwLoad;
        load_q  <= 7'(NumSemiblocks);
        half_q  <= 1'b0;
        step_q  <= 9'(Steps);
        ok_q    <= 1'b0;
      end else begin
        unique case (state_q)
          KwIdle, KwDone: ;
          KwLoad: begin
            half_q <= !half_q;
            low_q  <= ct_word_i;
            if (half_q) begin
              if (load_q == '0) begin
                a_q     <= {ct_word_i, low_q};
                state_q <= KwStart;
              end else begin
                ring_q <= Bits'({ring_q, ct_word_i, low_q});
                load_q <= load_q - 7'd1;
              end
            end
          end
          KwStart: state_q <= KwRun;
          KwRun: begin
            if (aes_done) begin
              a_q     <= aes_out[63:0];
              ring_q  <= Bits'({ring_q, aes_out[127:64]});
              step_q  <= step_q - 9'd1;
              state_q <= (step_q == 9'd1) ? KwJudge : KwStart;
            end
          end
          KwJudge: begin  // SEC_CM: KEY.KWP.VERDICT
            ok_q    <= good;
            done_q  <= 1'b1;
            a_q     <= '0;
            low_q   <= '0;
            state_q <= KwDone;
            if (!good) ring_q <= '0;
          end
          default: begin
            state_q <= KwIdle;
            ring_q  <= '0;
            a_q     <= '0;
          end
        endcase
      end
    end
  end
endmodule
