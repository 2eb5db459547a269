// Sampler of the physically unclonable function: 96 arbiter chains, 64 fixed challenges, 15 votes.
//
// start_i reads all 64 challenges once. For each, every chain races Votes times with offset_i
// steps of its delay line, and the majority of the answers is handed out: resp_valid_o pulses with
// resp_idx_o = challenge number (ascending) and resp_o = one voted bit per chain; there is no
// back-pressure. done_o pulses after the last word. Response bit i of the device is challenge i/96,
// chain i%96. offset_i is taken at start_i. A start while busy_o is ignored.
//
// unstable_o counts the (challenge, chain) pairs of the last run whose votes were not unanimous.
// resp_o is zero without resp_valid_o and every counter that knows responses is wiped at the end of
// a run; nothing on this interface chooses a challenge.
//
// The challenges. Of all 2^64 challenges of a chain only 64 are used, because a chain has 65
// parameters: its answer is the sign of w . phi with phi_i = (-1)^(c_i ^ c_i+1 ^ ... ^ c_63) for
// i < 64 and phi_64 = 1. Random challenges therefore give answers that predict each other.
// Challenge k is chosen such that phi_i = (-1)^parity(k & i), row k of the 64x64 Hadamard matrix in
// Sylvester's order: c_i = s_i ^ s_(i+1) with s_i = parity(k & i), s_64 = 0. With Var(w) = (1, 2,
// .., 2, 1) the covariance of two differences of arrival k != l is
//     sum_(i<64) 2 phi_i phi'_i  -  1 * phi_0 phi'_0  +  1  =  0 - 1 + 1  =  0,
// since rows are orthogonal and column 0 is all ones: 64 uncorrelated Gaussians, so 64 independent
// bits per chain in the ideal model, and not one more challenge has that property. s is the
// exclusive-or, over the ones b of k, of the pattern whose bit i is bit b of i.
//
// Votes are counted bit-sliced: plane p holds bit p of all 96 counters. Votes = 2^n - 1 makes the
// majority the top plane.
//
// Health. In a run at offset 0 a chain whose 64 bits hold at most 7 or at least 57 ones counts as
// stuck and raises health_fail_o, which keeps the verdict until the end of the next run at offset
// 0. Stuck chains are dangerous because they look reliable: enrolment by margin would choose just
// their bits, which everybody can guess. For a fair chain P(at most 7 or at least 57 of 64) =
// 7.6e-11, so 96 chains raise a false alarm in 7.3e-9 of the readings; a chain with its arbiter off
// by 2 sigma (97.7 % ones) is caught in 99.99 %. Other offsets bias the answers on purpose and are
// not judged.
//
// Timing: constant, NumChallenges * (Votes * EvalCycles + 2) + 1 cycles from the cycle after
// start_i to done_o (15,489 at the defaults). A race follows the one before without a gap; what
// sets its EvalCycles is in prim_puf_bank.
module lk_puf #(
  parameter int unsigned NumChains     = 96,
  parameter int unsigned NumStages     = 64,
  parameter int unsigned NumChallenges = 64,
  parameter int unsigned Votes         = 15,
  parameter int unsigned EvalCycles    = 16
) (
  input  logic                        clk_i,
  input  logic                        rst_ni,
  input  logic                        start_i,
  input  logic signed [7:0]           offset_i,
  output logic                        busy_o,
  output logic                        resp_valid_o,
  output logic [5:0]                  resp_idx_o,
  output logic [NumChains-1:0]        resp_o,
  output logic                        done_o,
  output logic [15:0]                 unstable_o,
  output logic                        health_fail_o
);
  localparam int unsigned Planes = $clog2(Votes + 1);

  if (NumStages != 64 || NumChallenges != 64) begin : gen_bad_size
    $fatal(1, "%m: the challenge set is defined for 64 stages and 64 challenges");
  end
  if (Votes < 3 || Votes > 255 || (1 << Planes) != Votes + 1) begin : gen_bad_votes
    $fatal(1, "%m: Votes must be 2^n - 1 and 3..255, got %0d", Votes);
  end
  if (NumChains < 1 || NumChains > 1023) begin : gen_bad_chains
    $fatal(1, "%m: NumChains must be 1..1023, got %0d", NumChains);
  end

  // SEC_CM: PUF.FSM.SPARSE (Hamming distance 3, any other code traps)
  typedef enum logic [5:0] {
    StIdle   = 6'b001011,
    StLaunch = 6'b010101,
    StRace   = 6'b011110,
    StWord   = 6'b100110,
    StDone   = 6'b101101,
    StTrap   = 6'b110011
  } state_e;

  // SEC_CM: PUF.CHALLENGE.FIXED
  function automatic logic [63:0] challenge(logic [5:0] k);
    logic [63:0] s;
    s = ({64{k[0]}} & 64'hAAAA_AAAA_AAAA_AAAA) ^ ({64{k[1]}} & 64'hCCCC_CCCC_CCCC_CCCC) ^
        ({64{k[2]}} & 64'hF0F0_F0F0_F0F0_F0F0) ^ ({64{k[3]}} & 64'hFF00_FF00_FF00_FF00) ^
        ({64{k[4]}} & 64'hFFFF_0000_FFFF_0000) ^ ({64{k[5]}} & 64'hFFFF_FFFF_0000_0000);
    return s ^ (s >> 1);
  endfunction

  state_e                            state_q;
  logic        [5:0]                 idx_q;
  logic        [Planes-1:0]          vote_q;
  logic signed [7:0]                 offset_q;
  logic        [63:0]                challenge_q;
  logic                              launch_q;
  logic        [NumChains-1:0]       response;
  logic                              done, last_vote;
  logic [Planes-1:0][NumChains-1:0]  votes_q;
  logic [6:0][NumChains-1:0]         ones_q;

  assign busy_o    = state_q != StIdle;
  assign last_vote = vote_q == Planes'(Votes - 1);

  prim_puf_bank #(
    .NumChains (NumChains),
    .EvalCycles(EvalCycles)
  ) u_bank (
    .clk_i,
    .rst_ni,
    .launch_i   (launch_q || (state_q == StRace && done && !last_vote)),
    .challenge_i(challenge_q),
    .offset_i   (offset_q),
    .response_o (response),
    .done_o     (done)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q       <= StIdle;
      idx_q         <= '0;
      vote_q        <= '0;
      offset_q      <= '0;
      challenge_q   <= '0;
      launch_q      <= 1'b0;
      votes_q       <= '0;
      ones_q        <= '0;
      resp_valid_o  <= 1'b0;
      resp_idx_o    <= '0;
      resp_o        <= '0;
      done_o        <= 1'b0;
      unstable_o    <= '0;
      health_fail_o <= 1'b0;
    end else begin
      case (state_q)
        StIdle: begin
          done_o <= 1'b0;
          if (start_i) begin
            state_q     <= StLaunch;
            launch_q    <= 1'b1;
            idx_q       <= '0;
            vote_q      <= '0;
            offset_q    <= offset_i;
            challenge_q <= challenge('0);
            unstable_o  <= '0;
          end
        end

        StLaunch: begin
          state_q      <= StRace;
          launch_q     <= 1'b0;
          resp_valid_o <= 1'b0;
          resp_o       <= '0;  // SEC_CM: PUF.RESP.WIPE
        end

        StRace: begin
          if (done) begin
            automatic logic [NumChains-1:0] carry;
            carry = response;
            for (int unsigned p = 0; p < Planes; p++) begin
              votes_q[p] <= votes_q[p] ^ carry;
              carry      = votes_q[p] & carry;
            end
            vote_q <= last_vote ? '0 : vote_q + 1'b1;
            if (last_vote) state_q <= StWord;
          end
        end

        StWord: begin
          automatic logic [NumChains-1:0] all, any, carry;
          all = '1;
          any = '0;
          for (int unsigned p = 0; p < Planes; p++) begin
            all &= votes_q[p];
            any |= votes_q[p];
          end
          carry = votes_q[Planes-1];
          for (int unsigned p = 0; p < 7; p++) begin
            ones_q[p] <= ones_q[p] ^ carry;
            carry     = ones_q[p] & carry;
          end
          votes_q      <= '0;  // SEC_CM: PUF.RESP.WIPE
          resp_valid_o <= 1'b1;
          resp_idx_o   <= idx_q;
          resp_o       <= votes_q[Planes-1];
          unstable_o   <= unstable_o + 16'($countones(any & ~all));
          idx_q        <= idx_q + 1'b1;
          challenge_q  <= challenge(idx_q + 1'b1);
          if (idx_q == 6'd63) begin
            state_q <= StDone;
          end else begin
            state_q  <= StLaunch;
            launch_q <= 1'b1;
          end
        end

        StDone: begin
          state_q      <= StIdle;
          done_o       <= 1'b1;
          resp_valid_o <= 1'b0;
          resp_o       <= '0;  // SEC_CM: PUF.RESP.WIPE
          ones_q       <= '0;
          // SEC_CM: PUF.HEALTH
          if (offset_q == '0) begin
            // At most 7: bits 6..3 are zero. At least 57: 64, or bits 5..3 are one and 2..0 not
            // zero.
            health_fail_o <= |(~(ones_q[6] | ones_q[5] | ones_q[4] | ones_q[3]) | ones_q[6] |
                               (ones_q[5] & ones_q[4] & ones_q[3] &
                                (ones_q[2] | ones_q[1] | ones_q[0])));
          end
        end

        // Only a reset leaves the trap; nothing leaves the PUF in it.
        default: begin
          state_q       <= StTrap;
          launch_q      <= 1'b0;
          resp_valid_o  <= 1'b0;
          resp_o        <= '0;
          votes_q       <= '0;
          ones_q        <= '0;
          done_o        <= 1'b0;
          health_fail_o <= 1'b1;
        end
      endcase
    end
  end
endmodule
