// One lane of the post unit: int32 accumulator to int8, bit-exact with a float32 requantisation.
//
//   v = acc + bias                                    int32
//   P = RN24(v) * M                                   exact, at most 57 bits; here mantissa and
//   shift t = RNE(RN24(P) >> s)
//   y = clamp(t + zero, lo, hi)
//
// RN24 rounds to 24 significant bits, RNE(>> s) shifts arithmetically, both half to even. This
// equals nearbyint((float)v * m) for m = M * 2^-s with 2^23 <= M < 2^24. M = 0 gives y =
// clamp(zero). All roundings are symmetric, so the lane works on the magnitude and a sign.
//
// Latency 10. stage_i[k] is high when stage k's register is to take a value (stage_i[0] with the
// inputs); the caller shifts it, so idle lanes neither toggle nor cost simulation time. zero, lo
// and hi are those of the value in the last stage.
module lk_requant_lane (
  input  logic               clk_i,
  input  logic [9:0]         stage_i,
  input  logic signed [31:0] acc_i,
  input  logic signed [31:0] bias_i,
  input  logic [23:0]        m_i,
  input  logic [5:0]         s_i,
  input  logic signed [7:0]  zero_i,
  input  logic signed [7:0]  lo_i,
  input  logic signed [7:0]  hi_i,
  output logic [7:0]         y_o
);
  // Stage 1: bias.
  logic signed [31:0] v1_q;
  logic [23:0]        m1_q, m2_q, m3_q;
  logic [5:0]         s1_q, s2_q, s3_q, s4_q, s5_q, s6_q;
  // Stage 2: magnitude.
  logic               neg2_q, neg3_q, neg4_q, neg5_q, neg6_q, neg7_q, neg8_q, neg9_q;
  logic [31:0]        mag2_q;
  // Stage 3: RN24(v) = a * 2^e.
  logic [23:0]        a3_q;
  logic [3:0]         e3_q, e4_q, e5_q, e6_q;
  // Stages 4, 5: product. Stage 6: f = bits of the product beyond 24.
  logic [47:0]        p4_q, p5_q, p6_q;
  logic [4:0]         f6_q;
  // Stage 7: RN24(P) = q * 2^(f+e); n = s - (f+e) right shifts are left to do.
  logic [24:0]        q7_q;
  logic signed [7:0]  n7_q;
  // Stage 8: integer part and rounding bits. Stage 9: |t|, saturated at 1,023.
  logic [24:0]        t8_q;
  logic               half8_q, sticky8_q;
  logic [9:0]         t9_q;

  // All logic sits behind its stage's enable, in local variables, so that an idle lane costs the
  // simulator nothing.
  always_ff @(posedge clk_i) begin
    if (stage_i[0]) begin
      v1_q <= acc_i + bias_i;
      m1_q <= m_i;
      s1_q <= s_i;
    end
    if (stage_i[1]) begin
      neg2_q <= v1_q[31];
      mag2_q <= v1_q[31] ? -v1_q : v1_q;
      m2_q   <= m1_q;
      s2_q   <= s1_q;
    end
    if (stage_i[2]) begin
      logic [3:0]  e3;
      logic [31:0] x3;
      logic [24:0] a3;
      e3 = '0;
      for (int unsigned i = 24; i < 32; i++) if (mag2_q[i]) e3 = 4'(i - 23);
      x3 = 32'({mag2_q, 8'b0} >> e3);  // the shift clears the upper 8 bits
      a3 = 25'(x3[31:8]) + 25'(x3[7] && (x3[6:0] != '0 || x3[8]));
      neg3_q <= neg2_q;
      // A carry out of the rounding leaves the single bit 2^24 = 2^23 * 2.
      a3_q   <= a3[24] ? 24'h800000 : a3[23:0];
      e3_q   <= a3[24] ? e3 + 1'b1 : e3;
      m3_q   <= m2_q;
      s3_q   <= s2_q;
    end
    if (stage_i[3]) begin
      neg4_q <= neg3_q;
      e4_q   <= e3_q;
      s4_q   <= s3_q;
      p4_q   <= 48'(a3_q) * 48'(m3_q);
    end
    if (stage_i[4]) begin
      neg5_q <= neg4_q;
      e5_q   <= e4_q;
      s5_q   <= s4_q;
      p5_q   <= p4_q;
    end
    if (stage_i[5]) begin
      logic [4:0] f6;
      f6 = '0;
      for (int unsigned i = 24; i < 48; i++) if (p5_q[i]) f6 = 5'(i - 23);
      neg6_q <= neg5_q;
      e6_q   <= e5_q;
      s6_q   <= s5_q;
      p6_q   <= p5_q;
      f6_q   <= f6;
    end
    if (stage_i[6]) begin
      logic [47:0] x7;
      x7 = 48'({p6_q, 24'b0} >> f6_q);  // the shift clears the upper 24 bits
      neg7_q <= neg6_q;
      q7_q   <= 25'(x7[47:24]) + 25'(x7[23] && (x7[22:0] != '0 || x7[24]));
      n7_q   <= 8'(s6_q) - 8'(f6_q) - 8'(e6_q);
    end
    if (stage_i[7]) begin
      // To the right, shifts by 26 and more leave less than half, a shift by 25 at most exactly
      // half, which rounds to the even 0. To the left, anything from 2^10 on saturates the clamp,
      // whatever zero is.
      logic [7:0]  left8;
      logic [49:0] x8;
      logic [34:0] l8;
      left8 = 8'(-n7_q);
      x8    = {q7_q, 25'b0} >> n7_q[4:0];
      l8    = 35'(q7_q) << left8[3:0];
      neg8_q    <= neg7_q;
      half8_q   <= 1'b0;
      sticky8_q <= 1'b0;
      if (n7_q <= 0) begin
        if (q7_q != '0 && (left8 >= 8'd10 || l8[34:10] != '0)) t8_q <= 25'd1023;
        else t8_q <= 25'(l8[9:0]);
      end else if (n7_q >= 8'sd26) begin
        t8_q <= '0;
      end else begin
        t8_q      <= x8[49:25];
        half8_q   <= x8[24];
        sticky8_q <= x8[23:0] != '0;
      end
    end
    if (stage_i[8]) begin
      logic [24:0] t9;
      t9 = t8_q + 25'(half8_q && (sticky8_q || t8_q[0]));
      neg9_q <= neg8_q;
      t9_q   <= t9[24:10] != '0 ? 10'd1023 : t9[9:0];
    end
    if (stage_i[9]) begin
      logic signed [11:0] t10;
      t10 = (neg9_q ? -12'(t9_q) : 12'(t9_q)) + 12'(zero_i);
      if (t10 < 12'(lo_i)) t10 = 12'(lo_i);
      else if (t10 > 12'(hi_i)) t10 = 12'(hi_i);
      y_o <= t10[7:0];
    end
  end
endmodule
