// Serial decoder for BCH(255, 131, 18), lk_bch_pkg: corrects up to 18 errors in 255 bits.
//
// 255 bits in (in_valid_i / in_ready_o), the coefficient of x^254 first; 255 corrected bits out in
// the same order, one per cycle without gaps and without back-pressure, out_last_o with the last.
// fail_o is valid with out_last_o and zero otherwise: the word was not within 18 errors of a code
// word, and the 255 bits just handed out are meaningless. Without fail_o they always are a code
// word, though with more than 18 errors in rare cases (about 1 in 18!, 1.6e-16) not the one that
// was sent.
//
// Three steps:
//   1. syndromes  S_j = r(alpha^j), j odd, by Horner while the bits arrive; S_2j = S_j^2 is binary
//      code's gift, so 18 registers do.
//   2. error locator by Berlekamp-Massey without inversion, in Berlekamp's form for binary codes:
//      18 iterations, one per odd syndrome. With lambda = B = gamma = 1, L = 0, iteration r = 0..17
//      is
//          d      = sum_(i=0..18) lambda_i S_(2r+1-i)                      (19 cycles)
//          lambda = gamma lambda + d x B
//          B      = x lambda_old, L = 2r+1-L, gamma = d   if d != 0 and L <= r
//                   x^2 B                                  otherwise      (19 cycles)
//      The coefficients rotate past one multiplier for d and two for the update. Coefficients
//      beyond x^18 only arise when L exceeds 18, which fails anyway, and are dropped.
//   3. Chien search: term j of lambda is multiplied by alpha^j once a cycle, so that their sum is
//      lambda(alpha^i) for i = 1, 2, .. 255; a zero says that position x^(255-i) is wrong, which is
//      just the order of the output. fail_o = L > 18 or the number of zeros is not L.
//
// SEC_CM: BCH.CONST_TIME. The number of cycles never depends on the data: 706 cycles from the last
// bit in to the first bit out, 960 to the last one; a block takes 1,215 cycles at full input speed.
//
// All registers are wiped as a word leaves, and on clear_i, which also drops the word under way.
module lk_bch_decoder
  import lk_bch_pkg::*;
(
  input  logic clk_i,
  input  logic rst_ni,
  input  logic clear_i,
  input  logic in_valid_i,
  output logic in_ready_o,
  input  logic in_bit_i,
  output logic out_valid_o,
  output logic out_bit_o,
  output logic out_last_o,
  output logic fail_o
);
  localparam int unsigned T = BchT;

  // SEC_CM: BCH.FSM.SPARSE (Hamming distance 3, any other code traps)
  typedef enum logic [5:0] {
    StReceive = 6'b001011,
    StSpread  = 6'b010101,
    StDisc    = 6'b011110,
    StUpdate  = 6'b100110,
    StNext    = 6'b101101,
    StSearch  = 6'b110011,
    StTrap    = 6'b111000
  } state_e;

  state_e            state_q;
  logic [8:0]        count_q;       // bits received; cycles within a step; bits searched
  logic [4:0]        iter_q;        // r
  logic [BchN-1:0]   word_q;        // the word as received, x^254 on top
  logic [T-1:0][7:0] syn_q;         // S_1, S_3, .. S_35; shifts down, the next odd one at index 0
  logic [T:0][7:0]   win_q;         // win_q[i] = S_(2r+1-i)
  logic [T:0][7:0]   lam_q, b_q;
  logic [7:0]        disc_q, gamma_q;
  logic [5:0]        len_q;         // L
  logic              sum_valid_q;   // sum_q holds lambda(alpha^i) for the bit on top of word_q
  logic [7:0]        sum_q;
  logic [5:0]        roots_q;

  // alpha^0 .. alpha^35, the constants of the Horner and Chien multipliers
  function automatic logic [2*T-1:0][7:0] alpha_table();
    logic [2*T-1:0][7:0] table_v;
    for (int unsigned i = 0; i < 2 * T; i++) table_v[i] = gf_alpha(i);
    return table_v;
  endfunction
  localparam logic [2*T-1:0][7:0] AlphaPow = alpha_table();

  logic       swap;  // the length changes in this iteration
  logic       root, last;
  logic [5:0] roots_now;

  assign swap        = (disc_q != '0) && (len_q <= 6'(iter_q));
  assign root        = sum_valid_q && sum_q == '0;
  assign last        = count_q == 9'(BchN + 1);
  assign roots_now   = roots_q + 6'(root);
  assign in_ready_o  = state_q == StReceive;
  assign out_valid_o = sum_valid_q;
  assign out_bit_o   = sum_valid_q && (word_q[BchN-1] ^ root);
  assign out_last_o  = sum_valid_q && last;
  assign fail_o      = out_last_o && (len_q > 6'(T) || roots_now != len_q);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q     <= StReceive;
      count_q     <= '0;
      iter_q      <= '0;
      word_q      <= '0;
      syn_q       <= '0;
      win_q       <= '0;
      lam_q       <= '0;
      b_q         <= '0;
      disc_q      <= '0;
      gamma_q     <= '0;
      len_q       <= '0;
      sum_valid_q <= 1'b0;
      sum_q       <= '0;
      roots_q     <= '0;
    end else if (state_q != StTrap && (clear_i || out_last_o)) begin
      // SEC_CM: BCH.WIPE
      state_q     <= StReceive;
      count_q     <= '0;
      iter_q      <= '0;
      word_q      <= '0;
      syn_q       <= '0;
      win_q       <= '0;
      lam_q       <= '0;
      b_q         <= '0;
      disc_q      <= '0;
      gamma_q     <= '0;
      len_q       <= '0;
      sum_valid_q <= 1'b0;
      sum_q       <= '0;
      roots_q     <= '0;
    end else begin
      case (state_q)
        StReceive: begin
          if (in_valid_i) begin
            word_q  <= {word_q[BchN-2:0], in_bit_i};
            for (int unsigned j = 0; j < T; j++) begin
              syn_q[j] <= gf_mul(syn_q[j], AlphaPow[2*j+1]) ^ {7'b0, in_bit_i};
            end
            count_q <= count_q + 1'b1;
            if (count_q == 9'(BchN - 1)) begin
              state_q <= StSpread;
              count_q <= '0;
            end
          end
        end

        StSpread: begin
          win_q    <= '0;
          win_q[0] <= syn_q[0];
          syn_q    <= {8'h00, syn_q[T-1:1]};
          lam_q    <= '0;
          lam_q[0] <= 8'h01;
          b_q      <= '0;
          b_q[0]   <= 8'h01;
          gamma_q  <= 8'h01;
          disc_q   <= '0;
          state_q  <= StDisc;
        end

        StDisc: begin
          disc_q  <= disc_q ^ gf_mul(lam_q[0], win_q[0]);
          lam_q   <= {lam_q[0], lam_q[T:1]};
          win_q   <= {win_q[0], win_q[T:1]};
          count_q <= count_q + 1'b1;
          if (count_q == 9'(T)) begin
            state_q <= StUpdate;
            count_q <= '0;
          end
        end

        StUpdate: begin
          // Coefficient i = 18 - count_q, at the top of the rotating registers; below index 0 is
          // zero.
          automatic logic [7:0] b_prev, b_new;
          b_prev = (count_q == 9'(T)) ? 8'h00 : b_q[T-1];
          if (swap) b_new = (count_q == 9'(T)) ? 8'h00 : lam_q[T-1];
          else      b_new = (count_q >= 9'(T - 1)) ? 8'h00 : b_q[T-2];
          lam_q   <= {lam_q[T-1:0], gf_mul(gamma_q, lam_q[T]) ^ gf_mul(disc_q, b_prev)};
          b_q     <= {b_q[T-1:0], b_new};
          count_q <= count_q + 1'b1;
          if (count_q == 9'(T)) begin
            state_q <= StNext;
            count_q <= '0;
          end
        end

        StNext: begin
          if (swap) begin
            gamma_q <= disc_q;
            len_q   <= {iter_q, 1'b1} - len_q;
          end
          disc_q  <= '0;
          // The window moves on by two: S_(2r+3) and S_(2r+2) = S_(r+1)^2, where S_(r+1) is at i =
          // r.
          win_q   <= {win_q[T-2:0], gf_sqr(win_q[iter_q]), syn_q[0]};
          syn_q   <= {8'h00, syn_q[T-1:1]};
          iter_q  <= iter_q + 1'b1;
          state_q <= (iter_q == 5'(T - 1)) ? StSearch : StDisc;
        end

        // Cycle 0 makes the terms of alpha^1, cycle i sums those of alpha^i, cycle i + 1 answers.
        StSearch: begin
          automatic logic [7:0] sum;
          sum = '0;
          for (int unsigned j = 0; j <= T; j++) begin
            sum      ^= lam_q[j];
            lam_q[j] <= gf_mul(lam_q[j], AlphaPow[j]);
          end
          sum_q       <= sum;
          count_q     <= count_q + 1'b1;
          sum_valid_q <= count_q != '0;
          if (sum_valid_q) begin
            word_q  <= {word_q[BchN-2:0], 1'b0};
            roots_q <= roots_now;
          end
        end

        // Only a reset leaves the trap; nothing is accepted and nothing handed out.
        default: begin
          state_q     <= StTrap;
          word_q      <= '0;
          syn_q       <= '0;
          win_q       <= '0;
          lam_q       <= '0;
          b_q         <= '0;
          sum_valid_q <= 1'b0;
          sum_q       <= '0;
        end
      endcase
    end
  end
endmodule
