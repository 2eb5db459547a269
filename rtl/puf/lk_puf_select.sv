// Chooses the 2,040 response bits of an enrolment. Part of the enrol build only.
//
// Repeating a race says little about which bits will survive heat and age: with 5 % noise most bits
// are unanimous. So the bits are chosen by margin: a bit survives margin m when it reads the same
// with the delay lines set to +m and to -m, which means that its difference of arrival is more than
// m steps away from the decision. Margins MarginFirst, MarginFirst - MarginStep, .. MarginLast are
// tried in turn until at least Keep of the 96 * 64 bits survive; the first such margin is the
// largest of the list, so the choice is as reliable as the device allows. Enrolment fails when
// MarginLast leaves fewer (the delay lines are too coarse for the spread of this device), and also
// when MarginFirst already leaves enough (they are too weak to tell good bits from bad, or dead:
// with no delay lines at all every bit would survive). A first run at offset 0 serves the health
// test; a stuck chain fails the enrolment, because stuck bits survive every margin and are no
// secret.
//
// Exactly Keep bits: of the survivors in ascending order of i = challenge * 96 + chain the first
// Keep are taken. The rule looks at positions only, never at values, and the positions surviving
// say something about the magnitude of a difference, not about its sign; so, if the population has
// no skew, dropping the last ones neither biases the bits that stay nor lets the public mask tell
// them. (With skew, margin selection itself amplifies it; no rule for the tail mends that.)
//
// start_i begins; done_o pulses at the end, fail_o is valid with it and keeps until the next start.
// margin_o is the margin used. On success rd_mask_o / rd_resp_o give word rd_idx_i (challenge) one
// cycle after the address while idle: bit c is chain c; response bits outside the mask read zero.
// On failure and on clear_i (any time; 64 cycles; an enrolment under way ends without done_o) both
// memories are wiped. The sampler must be idle or left alone until its done_o after a clear.
module lk_puf_select #(
  parameter int unsigned NumChains   = 96,
  parameter int unsigned Keep        = 2040,
  parameter int unsigned MarginFirst = 96,
  parameter int unsigned MarginLast  = 40,
  parameter int unsigned MarginStep  = 4
) (
  input  logic                 clk_i,
  input  logic                 rst_ni,
  input  logic                 clear_i,
  input  logic                 start_i,
  // lk_puf
  output logic                 puf_start_o,
  output logic signed [7:0]    puf_offset_o,
  input  logic                 resp_valid_i,
  input  logic [5:0]           resp_idx_i,
  input  logic [NumChains-1:0] resp_i,
  input  logic                 puf_done_i,
  input  logic                 puf_health_fail_i,
  // result
  output logic                 busy_o,
  output logic                 done_o,
  output logic                 fail_o,
  output logic [7:0]           margin_o,
  input  logic [5:0]           rd_idx_i,
  output logic [NumChains-1:0] rd_mask_o,
  output logic [NumChains-1:0] rd_resp_o
);
  localparam int unsigned Cw = $clog2(NumChains * 64 + 1);

  if (MarginFirst > 127 || MarginLast < 1 || MarginLast >= MarginFirst || MarginStep < 1)
  begin : gen_bad_margin
    $fatal(1, "%m: margins must satisfy 127 >= MarginFirst > MarginLast >= 1, MarginStep >= 1");
  end
  if (Keep < 1 || Keep > NumChains * 64) begin : gen_bad_keep
    $fatal(1, "%m: Keep must be 1..%0d, got %0d", NumChains * 64, Keep);
  end

  // SEC_CM: PUF_SELECT.FSM.SPARSE (Hamming distance at least 3, any other code traps)
  typedef enum logic [9:0] {
    StIdle     = 10'b0000101101,
    StHealth   = 10'b0011000111,
    StPlus     = 10'b0101011010,
    StMinus    = 10'b0110110001,
    StCheck    = 10'b1001110110,
    StTrimRead = 10'b1010011000,
    StTrimWord = 10'b1100100011,
    StTrimBits = 10'b1111001100,
    StWipe     = 10'b1111111111,
    StFinish   = 10'b0000010010,
    StTrap     = 10'b1001000001
  } state_e;

  state_e               state_q;
  logic [7:0]           margin_q;
  logic [Cw-1:0]        count_q;   // survivors so far; while trimming: bits still to keep
  logic                 judge_q;   // a word of the -m run waits for its +m twin from memory
  logic [5:0]           judge_idx_q;
  logic [NumChains-1:0] judge_resp_q;
  logic [5:0]           idx_q;     // word being trimmed or wiped
  logic [NumChains-1:0] rest_q, kept_q;
  logic                 failing_q; // what the wipe is for: a failure, or an order to clear
  logic                 clearing_q;

  // ---- memories: one read port (also the caller's), one write port
  logic [NumChains-1:0] mask_mem [64];
  logic [NumChains-1:0] resp_mem [64];
  logic [5:0]           rd_idx, wr_idx;
  logic                 mask_we, resp_we;
  logic [NumChains-1:0] mask_wd, resp_wd, agree, mask_rd, resp_rd;

  assign agree = ~(judge_resp_q ^ resp_rd);

  always_comb begin
    rd_idx = rd_idx_i;
    if (state_q == StMinus) rd_idx = resp_idx_i;
    if (state_q == StTrimRead || state_q == StTrimWord || state_q == StTrimBits) rd_idx = idx_q;

    mask_we = 1'b0;
    resp_we = 1'b0;
    wr_idx  = idx_q;
    mask_wd = '0;
    resp_wd = '0;
    unique case (1'b1)
      (state_q == StPlus && resp_valid_i): begin
        resp_we = 1'b1;
        wr_idx  = resp_idx_i;
        resp_wd = resp_i;
      end
      judge_q: begin
        mask_we = 1'b1;
        wr_idx  = judge_idx_q;
        mask_wd = agree;
      end
      (state_q == StTrimBits && (count_q == '0 || rest_q == '0)): begin
        mask_we = 1'b1;
        resp_we = 1'b1;
        mask_wd = kept_q;
        resp_wd = resp_rd & kept_q;
      end
      (state_q == StWipe): begin
        mask_we = 1'b1;
        resp_we = 1'b1;
      end
      default: ;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (mask_we) mask_mem[wr_idx] <= mask_wd;
    if (resp_we) resp_mem[wr_idx] <= resp_wd;
    mask_rd <= mask_mem[rd_idx];
    resp_rd <= resp_mem[rd_idx];
  end

  // Nothing is to be read before the choice is final.
  assign rd_mask_o = (state_q == StIdle) ? mask_rd : '0;
  assign rd_resp_o = (state_q == StIdle) ? resp_rd : '0;
  assign margin_o  = margin_q;
  assign busy_o    = state_q != StIdle;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q      <= StIdle;
      margin_q     <= '0;
      count_q      <= '0;
      judge_q      <= 1'b0;
      judge_idx_q  <= '0;
      judge_resp_q <= '0;
      idx_q        <= '0;
      rest_q       <= '0;
      kept_q       <= '0;
      failing_q    <= 1'b0;
      clearing_q   <= 1'b0;
      puf_start_o  <= 1'b0;
      puf_offset_o <= '0;
      done_o       <= 1'b0;
      fail_o       <= 1'b0;
    end else if (clear_i && state_q != StTrap) begin
      // SEC_CM: PUF_SELECT.WIPE
      state_q      <= StWipe;
      clearing_q   <= 1'b1;
      failing_q    <= 1'b0;
      idx_q        <= '0;
      judge_q      <= 1'b0;
      judge_resp_q <= '0;
      rest_q       <= '0;
      kept_q       <= '0;
      margin_q     <= '0;
      count_q      <= '0;
      puf_start_o  <= 1'b0;
      done_o       <= 1'b0;
      fail_o       <= 1'b0;
    end else begin
      puf_start_o <= 1'b0;
      done_o      <= 1'b0;
      judge_q     <= 1'b0;
      case (state_q)
        StIdle: begin
          if (start_i) begin
            state_q      <= StHealth;
            puf_start_o  <= 1'b1;
            puf_offset_o <= '0;
            margin_q     <= 8'(MarginFirst);
            failing_q    <= 1'b0;
            clearing_q   <= 1'b0;
            fail_o       <= 1'b0;
          end
        end

        StHealth: begin
          if (puf_done_i) begin
            if (puf_health_fail_i) begin
              state_q   <= StWipe;
              idx_q     <= '0;
              failing_q <= 1'b1;
            end else begin
              state_q      <= StPlus;
              puf_start_o  <= 1'b1;
              puf_offset_o <= signed'(margin_q);
            end
          end
        end

        StPlus: begin
          if (puf_done_i) begin
            state_q      <= StMinus;
            puf_start_o  <= 1'b1;
            puf_offset_o <= -signed'(margin_q);
            count_q      <= '0;
          end
        end

        StMinus: begin
          // The read of the twin goes out with the word; its verdict falls in the next cycle.
          if (resp_valid_i) begin
            judge_q      <= 1'b1;
            judge_idx_q  <= resp_idx_i;
            judge_resp_q <= resp_i;
          end
          if (judge_q) begin
            count_q      <= count_q + Cw'($countones(agree));
            judge_resp_q <= '0;
          end
          // The sampler's done_o comes at the earliest one cycle after its last word.
          if (puf_done_i) state_q <= StCheck;
        end

        StCheck: begin
          idx_q <= '0;
          if (32'(count_q) >= Keep && 32'(margin_q) == MarginFirst) begin
            state_q   <= StWipe;
            failing_q <= 1'b1;
          end else if (32'(count_q) >= Keep) begin
            state_q <= StTrimRead;
            count_q <= Cw'(Keep);
          end else if (32'(margin_q) < MarginLast + MarginStep) begin
            state_q   <= StWipe;
            failing_q <= 1'b1;
          end else begin
            state_q      <= StPlus;
            margin_q     <= margin_q - 8'(MarginStep);
            puf_start_o  <= 1'b1;
            puf_offset_o <= signed'(margin_q - 8'(MarginStep));
          end
        end

        // Trimming: bit after bit from the lowest, until a word is empty or nothing is left to
        // keep.
        StTrimRead: state_q <= StTrimWord;

        StTrimWord: begin
          rest_q  <= mask_rd;
          kept_q  <= '0;
          state_q <= StTrimBits;
        end

        StTrimBits: begin
          if (count_q == '0 || rest_q == '0) begin
            rest_q  <= '0;
            kept_q  <= '0;
            idx_q   <= idx_q + 1'b1;
            state_q <= (idx_q == 6'd63) ? StFinish : StTrimRead;
          end else begin
            kept_q  <= kept_q | (rest_q & -rest_q);
            rest_q  <= rest_q & (rest_q - 1'b1);
            count_q <= count_q - 1'b1;
          end
        end

        StWipe: begin
          idx_q <= idx_q + 1'b1;
          if (idx_q == 6'd63) state_q <= clearing_q ? StIdle : StFinish;
        end

        StFinish: begin
          state_q <= StIdle;
          done_o  <= 1'b1;
          fail_o  <= failing_q;
        end

        // Only a reset leaves the trap.
        default: begin
          state_q      <= StTrap;
          fail_o       <= 1'b1;
          judge_resp_q <= '0;
          rest_q       <= '0;
          kept_q       <= '0;
        end
      endcase
    end
  end
endmodule
